"""The command ``gdalbridge``, and ``python -m gdalbridge``."""

import os
import signal
import sys
from contextlib import suppress
from typing import Any

__all__ = ["main"]


def main() -> None:
    """Run the command line as a program: from its first import to its end."""
    # A shell's background job, or nohup, has Ctrl-C ignored: that stays.
    is_watched = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_watched:
        signal.signal(signal.SIGINT, _end)
    sys.unraisablehook = _shown_unless_interrupted
    # Names of files need not be text that the terminal's encoding has.
    with suppress(AttributeError, ValueError):
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    from gdalbridge.cli import main as commands
    from gdalbridge.cli.exits import InterruptWatch

    watch = InterruptWatch() if is_watched else None
    if is_watched:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        commands.main(obj=watch)
    finally:
        # While the interpreter ends, Python would print where it was.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _end)


def _end(number: int, frame: Any) -> None:
    with suppress(OSError):
        os.write(2, b"gdalbridge: interrupted\n")
    os._exit(130)


def _shown_unless_interrupted(unraisable: Any) -> None:
    # Python says "Exception ignored in ..." of a Ctrl-C that comes within a callback.
    if unraisable.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(unraisable)


if __name__ == "__main__":
    main()
