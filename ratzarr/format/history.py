"""A column's modification log: the time, user and command of each change.

An event is ``[ISO-8601 UTC, user, argv]`` on disk. Arguments that look like secrets are masked
before they are written, because the log is copied together with the table.

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
    """Return a command line with its secrets masked.

    This masks the values of options and ``NAME=value`` arguments whose name suggests a password,
    token, secret, key or credential, the password in URLs, and the signatures of signed URLs. A
    possible value of such an option is masked even if the option may take none, because hiding a
    harmless word is better than revealing a secret.
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
    """Return the event of this process at this time, as written to disk.

    Parameters
    ----------
    argv : iterable of str, optional
        The command line; by default that of this process.
    """
    words = [_printable(word) for word in mask(_argv() if argv is None else argv)]
    if len(words) > MAX_ARGUMENTS:
        # Limit the arguments: a shell may expand *.tif to 100 000 names, and every reader loads the log.
        words = [*words[:MAX_ARGUMENTS], f"... ({len(words) - MAX_ARGUMENTS} more)"]
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return [now, _user(), words]


def parse(log: object) -> list[Event]:
    """Return the events of a log, oldest first, skipping invalid ones."""
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
    # An embedded interpreter may lack sys.argv, and at shutdown it is None.
    return list(getattr(sys, "argv", None) or [])


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        # In a container, the user ID may be missing from passwd.
        return "unknown"


def _printable(word: str) -> str:
    # Bytes of a file name that are not UTF-8 appear as lone surrogates.
    word = word.encode("utf-8", "backslashreplace").decode("utf-8")
    return word if len(word) <= MAX_ARGUMENT else word[:MAX_ARGUMENT] + "..."
