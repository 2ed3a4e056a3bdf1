"""The command ``gdalbridge``, and ``python -m gdalbridge``."""

import os
import signal
import sys
from contextlib import suppress
from typing import Any

__all__ = ["main"]


def main() -> None:
    """Run the command line as a program, with error handling from the first import on."""
    try:
        _run()
    except MemoryError:
        # There was none left to report it in the usual way.
        os.write(2, b"gdalbridge: not enough memory\n")
        os._exit(1)


def _run() -> None:
    # A shell's background job, or nohup, starts with Ctrl-C ignored; keep that.
    is_watched = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_watched:
        signal.signal(signal.SIGINT, _end)
    sys.unraisablehook = _shown_unless_interrupted
    # File names may contain characters outside the terminal's encoding.
    with suppress(AttributeError, ValueError):
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # may be None
    try:
        from gdalbridge.cli import main as commands
        from gdalbridge.cli.exits import InterruptWatch
    except Exception as error:
        # A package is missing, or there is too little memory to load it.
        from gdalbridge.settings import shows_traceback

        if shows_traceback():
            raise
        sys.exit(f"gdalbridge: can't start: {type(error).__name__}: {error}")

    watch = InterruptWatch() if is_watched else None
    if is_watched:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        commands.main(obj=watch)
    finally:
        # During interpreter shutdown, Python would print a traceback.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _end)


def _end(number: int, frame: Any) -> None:
    with suppress(OSError):
        os.write(2, b"gdalbridge: interrupted\n")
    os._exit(130)


def _shown_unless_interrupted(unraisable: Any) -> None:
    # Python prints "Exception ignored in ..." for Ctrl-C during a callback.
    if unraisable.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    main()
