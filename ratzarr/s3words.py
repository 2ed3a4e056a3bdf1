"""What was said of how to reach S3: by whom, under which name, and what of it counts.

Ranks: 0 options of the call, 1 words from elsewhere, 2 the environment, 3 fsspec's
configuration, 4 the profile. Of what has the same rank, the first that is asked for counts.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from . import awsfiles

__all__ = ["ELSEWHERE", "NAMES", "Said", "Word", "is_true", "without_password"]

NAMES = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_S3_ENDPOINT",
    "AWS_HTTPS",
    "AWS_VIRTUAL_HOSTING",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_NO_SIGN_REQUEST",
    "AWS_REQUEST_PAYER",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "CPL_AWS_CREDENTIALS_FILE",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "RATZARR_FIRST_ANSWER",
)
"""Every name of either family that is read."""

ELSEWHERE = (
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "a web identity (AWS_WEB_IDENTITY_TOKEN_FILE)"),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "the container's role"),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "the container's role"),
)
ENVIRONMENT = "the environment"
OPTIONS = "storage options"


class Word(NamedTuple):
    """What somebody has said, and where: the smaller its rank, the more it counts."""

    value: Any
    source: str
    rank: int


class Said:
    """All that was said, and what was made of it so far."""

    def __init__(
        self,
        environment: Mapping[str, str],
        words: Mapping[str, tuple[str, str]],
        options: Mapping[str, Any],
        defaults: Mapping[str, Any],
    ) -> None:
        self.words = {
            name: Word(environment[name], ENVIRONMENT, 2)
            for name in (*NAMES, *(name for name, _ in ELSEWHERE))
            if environment.get(name)
        }
        self.words |= {name: Word(value, source, 1) for name, (value, source) in words.items()}
        self.options = (Word(options, OPTIONS, 0), Word(defaults, "fsspec's configuration", 3))
        self.sources: dict[str, str] = {}
        """Where each setting that was decided comes from."""
        self.conflicts: list[str] = []
        """What was said twice, and differently, in one place: sentences."""

    def of(self, name: str) -> list[Word]:
        """Return what was said by one name, with the name in its source."""
        word = self.words.get(name)
        if word is None:
            return []
        where = name if word.source == ENVIRONMENT else f"{name} in {word.source}"
        return [word._replace(source=where)]

    def of_options(self, *path: str) -> Iterator[Word]:
        """Yield what arguments of s3fs say."""
        for word in self.options:
            value: Any = word.value
            for name in path:
                value = value.get(name) if isinstance(value, Mapping) else None
            if value is not None and value != "":
                yield word._replace(value=value, source=f"{'.'.join(path)} in {word.source}")

    def of_profile(self, profile: awsfiles.Profile, value: str | None) -> list[Word]:
        """Return what a profile says."""
        return [Word(value, f"profile {profile.name}", 4)] if value else []

    def decide(self, what: str, *said: Any) -> Word | None:
        """Take what counts most; of equals the first. Note where equals differ."""
        words = sorted((word for some in said for word in some), key=lambda word: word.rank)
        if not words:
            return None
        chosen: Word = words[0]
        self.sources[what] = chosen.source
        for other in words[1:]:
            if other.rank == chosen.rank and other.value != chosen.value:
                self.conflicts.append(
                    f"{chosen.source} and {other.source} differ: "
                    f"{without_password(str(chosen.value))} counts, "
                    f"{without_password(str(other.value))} does not"
                )
        return chosen


def without_password(url: str | None) -> str | None:
    """Return a URL as it may be shown."""
    if not url or "@" not in url:
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def is_true(text: str) -> bool:
    """Return whether a word means yes, as GDAL has it."""
    return text.strip().upper() in {"YES", "TRUE", "ON", "1"}
