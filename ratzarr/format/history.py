"""The modification log of a column: when, who, and by what command.

An event is ``[ISO-8601 UTC, user, argv]`` on disk. What looks like a secret on the
command line is masked before it is written: the log goes wherever the table goes.

>>> mask(["prog", "--password", "hunter2", "--token=abc", "in.tif"])
['prog', '--password', '***', '--token=***', 'in.tif']
"""

import datetime as dt
import getpass
import re
import sys
from collections.abc import Iterable
from typing import Any

__all__ = ["Event", "event", "mask", "parse"]

type Event = tuple[dt.datetime, str, list[str]]

MASK = "***"
MAX_ARGUMENTS = 200
MAX_ARGUMENT = 1000

_SECRET = re.compile(r"passw|pwd|token|secret|key|credential|auth", re.IGNORECASE)
_OPTION = re.compile(r"(-{1,2}[^=\s]+|[A-Za-z_][\w.-]*)=(.*)", re.DOTALL)
_USERINFO = re.compile(r"(?<=://)[^/@\s]*:[^/@\s]*(?=@)")
_SIGNATURE = re.compile(
    r"(?i)([?&](?:[\w-]*(?:signature|token|secret|credential|key|sig)[\w-]*)=)[^&\s]+"
)


def mask(argv: Iterable[str]) -> list[str]:
    """Return a command line without its secrets.

    Masked are the values of options and ``NAME=value`` arguments whose name speaks of a
    password, token, secret, key or credential, the password part of URLs, and the
    signatures of signed URLs. What could be a value of such an option is masked even
    where the option might take none: a word too few does less harm than a secret.
    """
    masked: list[str] = []
    hide_next = False
    for argument in argv:
        if hide_next and not argument.startswith("-"):
            masked.append(MASK)
            hide_next = False
            continue
        hide_next = False
        match = _OPTION.fullmatch(argument)
        if match and _SECRET.search(match[1]):
            argument = f"{match[1]}={MASK}"
        elif argument.startswith("-") and _SECRET.search(argument):
            hide_next = True
        argument = _USERINFO.sub(MASK, argument)
        masked.append(_SIGNATURE.sub(rf"\1{MASK}", argument))
    return masked


def event(argv: Iterable[str] | None = None) -> list[Any]:
    """Return the event of this process, now, as it is written to disk.

    Parameters
    ----------
    argv : iterable of str, optional
        The command line; by default this process's.
    """
    words = [_printable(word) for word in mask(_argv() if argv is None else argv)]
    if len(words) > MAX_ARGUMENTS:
        # A shell's *.tif can be 100 000 names, and the log is read whenever a column is.
        words = [*words[:MAX_ARGUMENTS], f"... ({len(words) - MAX_ARGUMENTS} more)"]
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return [now, _user(), words]


def parse(log: object) -> list[Event]:
    """Return the events of a log, oldest first; what is no event is passed over."""
    events: list[Event] = []
    for entry in log if isinstance(log, list) else []:
        try:
            when, user, argv = entry
            time = dt.datetime.fromisoformat(when)
        except (ValueError, TypeError):
            continue
        if time.tzinfo is None:
            time = time.replace(tzinfo=dt.UTC)
        words = argv if isinstance(argv, list) else [argv]
        events.append((time.astimezone(dt.UTC), str(user), [str(word) for word in words]))
    return events


def _argv() -> list[str]:
    # An interpreter inside another program need not have one, and one that is ending has None.
    return list(getattr(sys, "argv", None) or [])


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        # A container may run under a number that no passwd knows.
        return "unknown"


def _printable(word: str) -> str:
    # Bytes of a file name that are no UTF-8 arrive as lone surrogates.
    word = word.encode("utf-8", "backslashreplace").decode("utf-8")
    return word if len(word) <= MAX_ARGUMENT else word[:MAX_ARGUMENT] + "..."
