"""As whom S3 is asked: keys, or who has them, by what was said.

The nearest counts, as for every setting. Where nothing was said at all, a machine of
Amazon's may have a role.
"""

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from . import awsfiles
from .s3words import ELSEWHERE, Said, Word, is_true

__all__ = ["MACHINE", "MACHINES", "NONE", "Keys", "identity"]

MACHINES = (
    ("/sys/devices/virtual/dmi/id/sys_vendor", "amazon ec2"),
    ("/sys/hypervisor/uuid", "ec2"),
)
"""Files that say whose machine this is, where they are, and how they begin on Amazon's."""
NONE = "none found"
MACHINE = "none set; the role of this machine, if it has one"


class Keys(NamedTuple):
    """Credentials as such; never to be shown."""

    key: str
    secret: str
    token: str | None = None

    def __repr__(self) -> str:
        return "Keys(...)"


def identity(
    said: Said,
    named: Word | None,
    profile: awsfiles.Profile,
    *,
    machines: tuple[tuple[str, str], ...] = MACHINES,
) -> tuple[Keys | None, str, str | None, int]:
    """Return keys, where they come from, the profile to ask, and how much it counts.

    Parameters
    ----------
    machines : tuple of (str, str)
        Files that say whose machine this is, and how they begin on one of Amazon's.
    """
    found = [one for one in (_keys_of_options(said), _keys_of_words(said)) if one is not None]
    rank = 4 if named is None else named.rank
    if profile.keys or profile.provider:
        # As the AWS tools and GDAL have it, keys go before a profile that is as near.
        keys = Keys(*profile.keys) if profile.keys else None
        where = f"profile {profile.name}"
        where += f" in {profile.keys_file}" if keys else f" ({profile.provider})"
        found.append((rank, keys, where, None if keys else profile.name))
    if found:
        best = min(found, key=lambda one: one[0])
        return best[1], best[2], best[3], best[0]
    halves = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    for half, other in (halves, halves[::-1]):
        if half in said.words:
            return None, f"{half} without {other}", None, 2
    for name, where in ELSEWHERE:
        if name in said.words:
            return None, where, None, 4
    if _may_have_role(said, machines):
        return None, MACHINE, None, 5
    return None, NONE, None, 5


def _may_have_role(said: Said, machines: tuple[tuple[str, str], ...]) -> bool:
    """Return whether this may be one of Amazon's machines, that are given a role.

    To ask their metadata service anywhere else is to wait for an answer that never comes.
    """
    if any(is_true(one.value) for one in said.of("AWS_EC2_METADATA_DISABLED")):
        return False
    if "AWS_EC2_METADATA_SERVICE_ENDPOINT" in said.words:
        return True
    for path, mark in machines:
        with suppress(OSError):
            return Path(path).read_text().lower().startswith(mark)
    # Nothing tells: the wait is a second or two.
    return True


def _keys_of_options(said: Said) -> tuple[int, Keys | None, str, str | None] | None:
    def first(*paths: tuple[str, ...]) -> Word | None:
        return min(
            (word for path in paths for word in said.of_options(*path)),
            key=lambda word: word.rank, default=None,
        )  # fmt: skip

    key = first(("key",), ("username",), ("client_kwargs", "aws_access_key_id"))
    secret = first(("secret",), ("password",), ("client_kwargs", "aws_secret_access_key"))
    token = first(("token",), ("client_kwargs", "aws_session_token"))
    if key is None or secret is None:
        return None
    keys = Keys(key.value, secret.value, token.value if token else None)
    return key.rank, keys, key.source.partition(" in ")[2], None


def _keys_of_words(said: Said) -> tuple[int, Keys | None, str, str | None] | None:
    key, secret = said.of("AWS_ACCESS_KEY_ID"), said.of("AWS_SECRET_ACCESS_KEY")
    if not key or not secret:
        return None
    # A token belongs to the keys that it was said with.
    tokens = [one for one in said.of("AWS_SESSION_TOKEN") if one.rank == key[0].rank]
    keys = Keys(key[0].value, secret[0].value, tokens[0].value if tokens else None)
    return min(key[0].rank, secret[0].rank), keys, key[0].source, None
