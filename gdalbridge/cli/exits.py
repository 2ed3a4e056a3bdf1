"""The end of a command: error messages, exit codes, and Ctrl-C.

The exit code is 0 on success, 1 after an error, 2 for wrong usage, 130 after Ctrl-C, and 141 if
the reader of the output has closed it (``| head``), as if SIGPIPE had ended the command. SIGTERM
ends a command at once, like any program; tables survive that as they survive SIGKILL.
"""

import errno
import os
import re
import select
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import click

from gdalbridge.errors import BridgeError
from gdalbridge.settings import TRACEBACK, shows_traceback
from ratzarr import RatZarrError
from ratzarr.errors import Advice

__all__ = ["InterruptWatch", "in_words", "say_note", "show_own_error"]

PROGRAM = "gdalbridge"
INTERRUPTED = 130
BROKEN_PIPE = 141
GRACE = 2.0
"""Seconds within which a command may end by itself after Ctrl-C."""

_KEYWORD = re.compile(r"\b([a-z_]+)=\"?(\w+|\.\.\.)\"?")
_interruption_said = threading.Event()


@contextmanager
def in_words() -> Iterator[None]:
    """Turn errors into messages on stderr with an exit code, and warnings into a line each."""
    try:
        with _warnings_shown():
            yield
    except (click.exceptions.Exit, click.exceptions.Abort, click.ClickException):
        raise
    except KeyboardInterrupt as error:
        _say_interrupted(error)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if isinstance(error, OSError) and _is_of_output(error):
            _give_up_output()
            if error.errno == errno.EPIPE:
                sys.exit(BROKEN_PIPE)
            error.filename = "standard output"
        _say(_error_text(error) + _notes(error))
        if shows_traceback():
            traceback.print_exc()
        sys.exit(1)


@contextmanager
def _warnings_shown() -> Iterator[None]:
    """Print each user warning once on stderr, without source lines; none with ``--quiet``."""
    context = click.get_current_context(silent=True)
    quiet = bool(context is not None and context.params.get("quiet"))
    shown: set[str] = set()
    with warnings.catch_warnings():
        show_others = warnings.showwarning

        def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
            text = str(message)
            if not issubclass(category, UserWarning):
                show_others(message, category, *where, **more)
            elif not quiet and text not in shown:
                shown.add(text)
                _say(f"warning: {_printable(text)}")

        warnings.showwarning = show
        warnings.simplefilter("always", UserWarning)
        yield


def _is_of_output(error: OSError) -> bool:
    """Return True if the error comes from writing a command's output, which only click does."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).parent == Path(click.__file__).parent


def _give_up_output() -> None:
    # Otherwise Python would flush stdout again at exit, and report an error.
    with suppress(OSError, AttributeError):
        sys.stdout.close()


def _say(text: str) -> None:
    # If stderr cannot be written either, the exit code must be enough.
    with suppress(OSError):
        click.echo(f"{PROGRAM}: {text}", err=True)


def say_note(text: str) -> None:
    """Print a line on stderr for information that is not a loss."""
    _say(f"note: {_printable(text)}")


def _say_interrupted(error: BaseException) -> None:
    _interruption_said.set()
    _say(f"interrupted{_notes(error)}")


def _notes(error: BaseException) -> str:
    notes = getattr(error, "__notes__", ())
    return "".join(f"\n  {_printable(_with_options(note, note))}" for note in notes)


def _error_text(error: Exception) -> str:
    message = error.args[0] if error.args else ""
    return _printable(_with_options(_bare_text(error), message))


def _bare_text(error: Exception) -> str:
    if isinstance(error, BridgeError | RatZarrError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"not enough memory. {error}".rstrip(" .")
    if isinstance(error, OSError) and error.strerror:
        given = [name for name in (error.filename, error.filename2) if name is not None]
        names = [os.fsdecode(name) if isinstance(name, bytes) else str(name) for name in given]
        return ": ".join([" -> ".join(names), error.strerror] if names else [error.strerror])
    if isinstance(error, UnicodeError):
        return f"text that is not valid Unicode: {error}"
    if isinstance(error, RecursionError):
        return f"nested too deeply: {error}"
    if isinstance(error, OSError | RuntimeError | ImportError) and str(error):
        # The words of GDAL or of the operating system.
        return str(error)
    return f"{_where(error.__traceback__)}: {type(error).__name__}: {error}"


def _where(trace: TracebackType | None) -> str:
    frames = traceback.extract_tb(trace)
    place = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return f"unforeseen error{place}, which {TRACEBACK}=1 shows in full"


def _with_options(text: str, message: object) -> str:
    """Replace Python's keywords in a hint by the command's options."""
    context = click.get_current_context(silent=True)
    hint = message.hint if isinstance(message, Advice) else ""
    if context is None or not hint or not text.endswith(hint):
        return text
    options = {one.name: one for one in context.command.params if isinstance(one, click.Option)}

    def option(match: re.Match[str]) -> str:
        found = options.get(match[1])
        if found is None:
            return match[0]
        names = found.secondary_opts if match[2] == "False" else found.opts
        if not names:
            return match[0]
        value = "" if match[2] in ("True", "False", "...") else f" {match[2]}"
        return max(names, key=len) + value

    return text[: -len(hint)] + _KEYWORD.sub(option, hint)


def show_own_error(error: BaseException) -> None:
    """Print the traceback of a user's own program as Python does, without our frames."""
    trace = error.__traceback__
    ours = (str(Path(__file__).parents[1]), str(Path(click.__file__).parent), "<frozen ")
    while trace is not None and trace.tb_next is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(ours):
            break
        trace = trace.tb_next
    with suppress(OSError):
        # Not passed on: Python shows the traceback of the error itself.
        sys.excepthook(type(error), error.with_traceback(trace), trace)


class InterruptWatch:
    """Ends the process soon after Ctrl-C if it does not end by itself.

    Python raises KeyboardInterrupt only between instructions, not while GDAL reads or threads wait
    for a server. A process ended here leaves the same state as a killed one.

    Parameters
    ----------
    grace : float
        Seconds until the process is ended. A second Ctrl-C ends it at once.
    """

    def __init__(self, grace: float = GRACE) -> None:
        self._grace = grace
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._is_closed = False
        try:
            threading.Thread(target=self._watch, name="interrupt-watch", daemon=True).start()
        except RuntimeError:
            # Without memory for a thread, Python's own handling must be enough.
            self.close()

    def close(self) -> None:
        """Leave Ctrl-C to Python alone."""
        if not self._is_closed:
            self._is_closed = True
            signal.set_wakeup_fd(self._before)
            os.close(self._writer)

    def _watch(self) -> None:
        deadline: float | None = None
        while True:
            # Wait here: to start a timer's thread takes locks, which the interrupted thread may hold.
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([self._reader], [], [], left)[0]:
                break
            numbers = os.read(self._reader, 1)
            if not numbers:
                os.close(self._reader)
                return
            if numbers[0] == signal.SIGINT:
                if deadline is not None:
                    break
                deadline = time.monotonic() + self._grace
        self._end()

    def _end(self) -> None:
        if self._is_closed:
            return
        words = "" if _interruption_said.is_set() else f"{PROGRAM}: interrupted\n"
        # A progress bar has hidden the cursor; show it again.
        shown = "\x1b[?25h\n" if os.isatty(2) else ""
        with suppress(OSError):
            os.write(2, f"{shown}{words}".encode())
        # GDAL may be in the middle of a long copy, and would not return to whoever removes it.
        with suppress(Exception):
            # Without the module, nothing temporary was made; it is not imported for that.
            made = sys.modules.get("ratzarr.stores.temp_output")
            if made is not None:
                made.remove_temporary()
        os._exit(INTERRUPTED)


def _printable(text: str) -> str:
    """Return text without control characters of a terminal, except line feeds."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)
