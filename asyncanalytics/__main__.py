"""The script's entry point: `asyncanalytics` and `python -m asyncanalytics`."""

from __future__ import annotations

import sys

from asyncanalytics.errors import MissingExtra

# As in cli/exits.py, which cannot be imported where its extra is missing.
_CONFIGURATION = 3
_INTERRUPTED = 130


def main() -> int:
    """Run the command line on the process's arguments, and return its exit code.

    Without the extra `cli` one line says how to install it, and the code is 3.
    """
    try:
        from asyncanalytics.cli import run
    except MissingExtra as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - rich is what is missing
        return _CONFIGURATION
    except KeyboardInterrupt:  # so early that nothing has begun
        return _INTERRUPTED
    return run()


if __name__ == "__main__":
    sys.exit(main())
