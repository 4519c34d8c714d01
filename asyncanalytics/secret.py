"""What must not be shown: keys and tokens in a wrapper, and frames without what they held.

Tools that report errors show each frame's locals by their reprs. So a key goes from a
constructor's parameter into a `Secret` before anything can fail, and an error that leaves for
the caller leaves with the frames it came through emptied: the lines stay, the values go.
"""

from __future__ import annotations

from functools import wraps
from traceback import clear_frames
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


class Unpicklable:
    """What is of use in its own process only, and holds what no file should."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled, and to be copied."""
        raise TypeError(
            f"a {type(self).__name__} holds a key or calls, and cannot be pickled or copied: "
            "make it where it is used"
        )


class Secret(Unpicklable):
    """A text that opens something. Only `reveal` shows it."""

    __slots__ = ("_text",)

    def __init__(self, text: object) -> None:
        """Take the text, or another secret; whether it is text at all is checked later."""
        self._text = text.reveal() if isinstance(text, Secret) else text

    def reveal(self) -> object:
        """Return the text. Keep it in no variable of a frame that may raise."""
        return self._text

    def text(self) -> str:
        """Return the text, where it has been checked to be some."""
        return str(self._text)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._text)

    def __copy__(self) -> Secret:
        """Return itself: it never changes."""
        return self

    def __deepcopy__(self, _: object) -> Secret:
        """Return itself: it never changes."""
        return self

    def __repr__(self) -> str:
        """Show nothing of it."""
        return "<Secret>"


def stripped(held: list[BaseException]) -> BaseException:
    """Return an error, to be raised again, without what it came through held.

    The lines of its frames stay and their values go, and so do the errors that led to it, whose
    text may quote a value. For use after the handler: what the caller was handling when it came
    here becomes the error's context then. The frame that raises it deletes its own values.
    """
    error = held.pop()  # its frame would hold it, and it its frame
    trace = error.__traceback__
    clear_frames(trace)  # but those that still run
    error.__cause__ = error.__context__ = None
    error.__suppress_context__ = False
    return error.with_traceback(trace and trace.tb_next)


def discreet(function: Callable[_Params, _Result]) -> Callable[_Params, _Result]:
    """Have what a function raises leave without what the function was given."""

    @wraps(function)
    def call(*args: _Params.args, **given: _Params.kwargs) -> _Result:
        try:
            return function(*args, **given)
        except BaseException as error:  # noqa: BLE001 - raised again below
            held = [error]
        del args, given
        raise stripped(held)

    return call
