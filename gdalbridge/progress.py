"""Progress of long operations, and cancellation, for each kind of progress object.

A progress is ``None``, ``True`` (a bar, on a terminal only), a GDAL callback, or a RIOS progress
object. Each becomes a :class:`Progress` with one method.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from gdalbridge.errors import BridgeError, CancelledError

__all__ = ["Progress", "progress_of"]


class Progress(Protocol):
    """Receives the progress of an operation from time to time."""

    def report(self, done: float, message: str = "", detail: str = "") -> None:
        """Report that a fraction ``done`` (0 to 1) of the work is finished.

        ``detail`` is text that changes with each call (the block, the remaining time). Callbacks
        receive it. A bar shows its own text, and RIOS objects would print a line for each message.

        Raises
        ------
        CancelledError
            If the user has cancelled.
        """


class _Silent:
    def report(self, done: float, message: str = "", detail: str = "") -> None:
        pass


class _Callback:
    def __init__(self, callback: Any) -> None:
        self._callback = callback

    def report(self, done: float, message: str = "", detail: str = "") -> None:
        # GDAL: 0 cancels. A callback that returns None does not decide.
        answer = self._callback(done, ", ".join(text for text in (message, detail) if text), None)
        if answer is not None and not answer:
            raise CancelledError("cancelled by the progress callback")


class _Rios:
    def __init__(self, progress: Any) -> None:
        self._progress, self._percent, self._label = progress, -1, ""
        progress.setTotalSteps(100)

    def report(self, done: float, message: str = "", detail: str = "") -> None:
        if message and message != self._label and hasattr(self._progress, "setLabelText"):
            # RIOS prints a line for each call.
            self._label = message
            self._progress.setLabelText(message)
        # 0.29 * 100 is less than 29.
        percent = int(100 * done + 1e-9)
        if percent != self._percent:
            self._percent = percent
            self._progress.setProgress(percent)
        if hasattr(self._progress, "wasCancelled") and self._progress.wasCancelled():
            raise CancelledError("cancelled by the progress object")


class _Bar:
    def __init__(self, bar: Any) -> None:
        self._bar = bar

    def report(self, done: float, message: str = "", detail: str = "") -> None:
        self._bar.label = message
        self._bar.update(int(1000 * done) - self._bar.pos)


@contextmanager
def progress_of(progress: Any) -> Iterator[Progress]:
    """Return a :class:`Progress` for the caller's argument, as a context manager.

    Raises
    ------
    BridgeError
        For any other object.
    """
    if progress is None or progress is False:
        yield _Silent()
    elif progress is True:
        if not sys.stderr.isatty():
            yield _Silent()
            return
        import click

        with click.progressbar(length=1000, file=sys.stderr, width=30) as bar:
            yield _Bar(bar)
    elif hasattr(progress, "setTotalSteps") and hasattr(progress, "setProgress"):
        yield _Rios(progress)
    elif callable(progress):
        yield _Callback(progress)
    else:
        raise BridgeError(
            "progress is None, True, a callback f(complete, message, data), or an object with "
            f"setTotalSteps and setProgress: got {progress!r}"
        )
