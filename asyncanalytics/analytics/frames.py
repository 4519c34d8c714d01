"""Errors that leave this drop-in show nothing of the call that they are about."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from asyncanalytics.secret import stripped

if TYPE_CHECKING:
    from collections.abc import Callable

_Params = ParamSpec("_Params")
_Result = TypeVar("_Result")


def discreet(function: Callable[_Params, _Result]) -> Callable[_Params, _Result]:
    """Have what a function raises leave without what the function was given."""

    @wraps(function)
    def call(*args: _Params.args, **given: _Params.kwargs) -> _Result:
        try:
            return function(*args, **given)
        except BaseException as error:  # noqa: BLE001 - raised again below
            failure = error
        del args, given
        raise stripped(failure)

    return call
