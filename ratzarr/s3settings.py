"""One reading of the AWS settings, for every S3 client at work here.

s3fs (our stores) and GDAL (``/vsis3/``) read different environment variables for the
same thing: a user who has set one family of names would reach one server with the table
and another with the raster. Here both families are read once, in one order, together with
the files in ``~/.aws``; the result can be said in either client's terms.

What goes before what, setting by setting: options of the call; words from elsewhere
(:func:`consult`, which is how GDAL's configuration options come in); the environment;
fsspec's configuration; the profile. In one place the AWS tools' name goes before GDAL's.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from . import awsfiles
from .errors import ArgumentError

__all__ = ["NAMES", "Keys", "S3Settings", "consult", "current", "without_password"]

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
MACHINES = (
    ("/sys/devices/virtual/dmi/id/sys_vendor", "amazon ec2"),
    ("/sys/hypervisor/uuid", "ec2"),
)
"""Files that say whose machine this is, where they are."""
FIRST_ANSWER = 8.0
PROFILES = ("AWS_DEFAULT_PROFILE", "AWS_PROFILE")
"""The first counts, for both clients."""
NONE = "none found"
MACHINE = "none set; the role of this machine, if it has one"
ENVIRONMENT = "the environment"
OPTIONS = "storage options"


class Keys(NamedTuple):
    """Credentials as such; never to be shown."""

    key: str
    secret: str
    token: str | None = None

    def __repr__(self) -> str:
        return "Keys(...)"


class Word(NamedTuple):
    """What somebody has said, and where: the smaller its rank, the more it counts."""

    value: Any
    source: str
    rank: int


@dataclass(frozen=True, slots=True)
class S3Settings:
    """Where S3 is, how to speak to it, and as whom."""

    endpoint: str | None = None
    """URL of a server other than AWS's own, without a trailing slash."""
    region: str | None = None
    """Region, e.g. ``ap-southeast-2``."""
    profile: str | None = None
    """Section of ``~/.aws`` to use."""
    anonymous: bool = False
    """Whether requests go unsigned."""
    requester_pays: bool = False
    """Whether we pay for the requests."""
    path_style: bool = False
    """``endpoint/bucket/key`` in place of ``bucket.endpoint/key``."""
    keys: Keys | None = field(default=None, repr=False)
    """Credentials, where they are written somewhere; else the clients' own chains find them."""
    credentials: str = NONE
    """Where the credentials come from, in words without a secret."""
    use_profile: str | None = None
    """The profile that the credentials must be asked of, as they are not written in it."""
    files: tuple[str, str] = ("~/.aws/config", "~/.aws/credentials")
    """The AWS tools' files of settings and of credentials."""
    first_answer: float = FIRST_ANSWER
    """Seconds within which a server must give its first answer, whatever is tried."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Where each setting that was set comes from, by its name."""
    conflicts: tuple[str, ...] = ()
    """What was said twice, and differently, in one place: sentences."""
    problem: str | None = None
    """Why nothing can be asked with these, if so."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "S3Settings":
        """Read the variables of the AWS tools and of GDAL, and the files in ``~/.aws``."""
        return cls.resolve(environment)

    @classmethod
    def resolve(
        cls,
        environment: Mapping[str, str],
        *,
        words: Mapping[str, tuple[str, str]] | None = None,
        options: Mapping[str, Any] | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> "S3Settings":
        """Decide each setting.

        Parameters
        ----------
        environment : mapping
            ``os.environ``, or the like; see :data:`NAMES`.
        words : mapping, optional
            Value and source by the same names: these go before the environment's.
        options : mapping, optional
            Arguments for ``s3fs.S3FileSystem``: these go before all else.
        defaults : mapping, optional
            Such arguments too, which go after the environment.

        Raises
        ------
        ArgumentError
            Where a file can't be read, or a number is none.
        """
        return _Reading(environment, words or {}, options or {}, defaults or {}).settings()

    def s3fs_arguments(self) -> dict[str, Any]:
        """Return these settings as arguments of ``s3fs.S3FileSystem``."""
        client: dict[str, Any] = {}
        if self.region:
            client["region_name"] = self.region
        config: dict[str, Any] = {}
        if self.path_style:
            config["s3"] = {"addressing_style": "path"}
        elif "path_style" in self.sources:
            config["s3"] = {"addressing_style": "virtual"}
        arguments: dict[str, Any] = {"client_kwargs": client, "config_kwargs": config}
        if self.endpoint:
            arguments["endpoint_url"] = self.endpoint
        if self.anonymous:
            arguments["anon"] = True
        elif self.keys and not self.keys_in_environment:
            arguments.update(self.keys._asdict())
        if self.requester_pays:
            arguments["requester_pays"] = True
        return arguments

    def gdal_options(self, keys: Keys | None = None) -> dict[str, str]:
        """Return these settings as GDAL's configuration options for ``/vsis3/``.

        Parameters
        ----------
        keys : Keys, optional
            Credentials that GDAL would not find by itself.
        """
        options: dict[str, str] = {}
        if self.endpoint:
            scheme, _, host = self.endpoint.partition("://")
            options["AWS_S3_ENDPOINT"] = host
            options["AWS_HTTPS"] = "YES" if scheme == "https" else "NO"
        if self.endpoint or "path_style" in self.sources:
            options["AWS_VIRTUAL_HOSTING"] = "FALSE" if self.path_style else "TRUE"
        if self.region:
            # Of these two GDAL takes the second, and most tools the first.
            options["AWS_REGION"] = options["AWS_DEFAULT_REGION"] = self.region
        if self.anonymous or "anonymous" in self.sources:
            options["AWS_NO_SIGN_REQUEST"] = "YES" if self.anonymous else "NO"
        if self.requester_pays or "requester_pays" in self.sources:
            options["AWS_REQUEST_PAYER"] = "requester" if self.requester_pays else ""
        if self.profile:
            options["AWS_PROFILE"] = self.profile
        known = keys or (None if self.keys_in_environment else self.keys)
        if known and not self.anonymous:
            options["AWS_ACCESS_KEY_ID"] = known.key
            options["AWS_SECRET_ACCESS_KEY"] = known.secret
            # Also an empty one: another's token must not go with these keys.
            options["AWS_SESSION_TOKEN"] = known.token or ""
        return options

    @property
    def keys_in_environment(self) -> bool:
        """Whether both clients find the keys by themselves, and need not be handed them."""
        of_environment = self.credentials == "AWS_ACCESS_KEY_ID"
        # Handed a profile, s3fs does not look there.
        return of_environment and self.sources.get("profile") in (None, *PROFILES)

    def tried(self) -> str:
        """Say in a few words who was asked, and as whom; without a secret."""
        region = self.region or "not said"
        return (
            f"endpoint {self._shown('endpoint', without_password(self.endpoint))}, "
            f"region {self._shown('region', region)}, credentials: {self.credentials}"
        )

    def _shown(self, name: str, value: str | None) -> str:
        source = self.sources.get(name)
        return f"{value or "AWS's own"}" + (f" ({source})" if source else "")


def without_password(url: str | None) -> str | None:
    """Return a URL as it may be shown."""
    if not url or "@" not in url:
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


_elsewhere: list[Callable[[str], Mapping[str, tuple[str, str]]]] = []


def consult(source: Callable[[str], Mapping[str, tuple[str, str]]]) -> None:
    """Have what is said elsewhere count from now on, before the environment.

    Parameters
    ----------
    source : callable
        Gets a bucket's name; returns value and source by the names of either family.
    """
    if source not in _elsewhere:
        _elsewhere.append(source)


def current(bucket: str, options: Mapping[str, Any] | None = None) -> S3Settings:
    """Return the settings that are in force now, for a bucket.

    Parameters
    ----------
    bucket : str
        Its name; settings can be for one bucket alone.
    options : mapping, optional
        Arguments for ``s3fs.S3FileSystem``, which go before all else.
    """
    import fsspec.config

    words: dict[str, tuple[str, str]] = {}
    for source in _elsewhere:
        words.update(source(bucket))
    # s3fs itself would add these to what we pass.
    defaults = fsspec.config.conf.get("s3", {})
    return S3Settings.resolve(os.environ, words=words, options=options, defaults=defaults)


class _Reading:
    """One decision on all settings. Ranks: 0 options, 1 words, 2 environment, 3 and 4 the rest."""

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
        self.conflicts: list[str] = []

    def settings(self) -> S3Settings:
        named = self.decide("profile", self.of_options("profile"), self.of("AWS_DEFAULT_PROFILE"),
                            self.of("AWS_PROFILE"))  # fmt: skip
        profile = awsfiles.read_profile(
            named.value if named else "default",
            {name: str(word.value) for name, word in self.words.items()},
        )
        problem = None
        if named and not profile.found:
            problem = (
                f"the AWS profile {named.value!r} ({named.source}) is neither in "
                f"{profile.config_file} nor in {profile.credentials_file}"
            )
        endpoint = self.endpoint(profile)
        region = self.decide(
            "region",
            self.of_options("client_kwargs", "region_name"),
            self.of("AWS_REGION"),
            self.of("AWS_DEFAULT_REGION"),
            self.of_profile(profile, profile.region),
        )
        styles = [
            word._replace(value=word.value == "path")
            for word in (
                *self.of_options("config_kwargs", "s3", "addressing_style"),
                *self.of_profile(profile, profile.addressing_style),
            )
        ]
        virtual = [
            one._replace(value=not _is_true(one.value)) for one in self.of("AWS_VIRTUAL_HOSTING")
        ]
        path_style = self.decide("path_style", styles, virtual)
        pays = self.decide(
            "requester_pays",
            self.of_options("requester_pays"),
            [
                one._replace(value=one.value.strip().lower() == "requester")
                for one in self.of("AWS_REQUEST_PAYER")
            ],
        )
        keys, credentials, use_profile, rank = self.identity(named, profile)
        unsigned = self.decide(
            "anonymous",
            self.of_options("anon"),
            [one._replace(value=_is_true(one.value)) for one in self.of("AWS_NO_SIGN_REQUEST")],
        )
        # Credentials that are given more urgently than the wish to have none, count.
        anonymous = unsigned is not None and bool(unsigned.value) and unsigned.rank <= rank
        first = self.decide(
            "first_answer", self.of_options("first_answer"), self.of("RATZARR_FIRST_ANSWER")
        )
        return S3Settings(
            files=(profile.config_file, profile.credentials_file),
            first_answer=_seconds(first) if first else FIRST_ANSWER,
            endpoint=endpoint.value if endpoint else None,
            region=region.value if region else None,
            profile=named.value if named else None,
            anonymous=anonymous,
            requester_pays=bool(pays and pays.value),
            # A server of one's own rarely has a name per bucket; AWS's own always has.
            path_style=path_style.value if path_style else endpoint is not None,
            keys=None if anonymous else keys,
            credentials=(
                f"none, requests are not signed ({self.sources['anonymous']})"
                if anonymous
                else credentials
            ),
            use_profile=None if anonymous else use_profile,
            sources=MappingProxyType(self.sources),
            conflicts=tuple(self.conflicts),
            problem=problem,
        )

    # ---- what was said

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

    # ---- endpoint and credentials

    def endpoint(self, profile: awsfiles.Profile) -> Word | None:
        ignores = [_is_true(one.value) for one in self.of("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")]
        configured = [] if (ignores or [profile.ignores_endpoints])[0] else [
            *self.of("AWS_ENDPOINT_URL_S3"),
            *self.of("AWS_ENDPOINT_URL"),
            *self.of_profile(profile, profile.endpoint),
        ]  # fmt: skip
        https = all(_is_true(one.value) for one in self.of("AWS_HTTPS"))
        gdals = [
            one._replace(value=one.value if "://" in one.value else _url(one.value, https))
            for one in self.of("AWS_S3_ENDPOINT")
        ]
        said = [
            [*self.of_options("endpoint_url"), *self.of_options("client_kwargs", "endpoint_url")],
            configured,
            gdals,
        ]
        clean = [[one._replace(value=str(one.value).rstrip("/")) for one in some] for some in said]
        # The two names of the AWS tools are one for all services and one for S3: no conflict.
        specific = [one for one in clean[1] if one.source.startswith("AWS_ENDPOINT_URL_S3")]
        if specific:
            clean[1] = specific
        return self.decide("endpoint", *clean)

    def identity(
        self, named: Word | None, profile: awsfiles.Profile
    ) -> tuple[Keys | None, str, str | None, int]:
        """Return keys, where they come from, the profile to ask, and how much it counts."""
        found = [one for one in (self.keys_of_options(), self.keys_of_words()) if one is not None]
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
            if half in self.words:
                return None, f"{half} without {other}", None, 2
        for name, where in ELSEWHERE:
            if name in self.words:
                return None, where, None, 4
        if self.may_have_role():
            return None, MACHINE, None, 5
        return None, NONE, None, 5

    def may_have_role(self) -> bool:
        """Return whether this may be one of Amazon's machines, that are given a role.

        To ask their metadata service anywhere else is to wait for an answer that never comes.
        """
        if any(_is_true(one.value) for one in self.of("AWS_EC2_METADATA_DISABLED")):
            return False
        if "AWS_EC2_METADATA_SERVICE_ENDPOINT" in self.words:
            return True
        for path, mark in MACHINES:
            with suppress(OSError):
                return Path(path).read_text().lower().startswith(mark)
        # Nothing tells: the wait is a second or two.
        return True

    def keys_of_options(self) -> tuple[int, Keys | None, str, str | None] | None:
        def first(*paths: tuple[str, ...]) -> Word | None:
            return min(
                (word for path in paths for word in self.of_options(*path)),
                key=lambda word: word.rank, default=None,
            )  # fmt: skip

        key = first(("key",), ("username",), ("client_kwargs", "aws_access_key_id"))
        secret = first(("secret",), ("password",), ("client_kwargs", "aws_secret_access_key"))
        token = first(("token",), ("client_kwargs", "aws_session_token"))
        if key is None or secret is None:
            return None
        keys = Keys(key.value, secret.value, token.value if token else None)
        return key.rank, keys, key.source.partition(" in ")[2], None

    def keys_of_words(self) -> tuple[int, Keys | None, str, str | None] | None:
        key, secret = self.of("AWS_ACCESS_KEY_ID"), self.of("AWS_SECRET_ACCESS_KEY")
        if not key or not secret:
            return None
        # A token belongs to the keys that it was said with.
        tokens = [one for one in self.of("AWS_SESSION_TOKEN") if one.rank == key[0].rank]
        keys = Keys(key[0].value, secret[0].value, tokens[0].value if tokens else None)
        return min(key[0].rank, secret[0].rank), keys, key[0].source, None


def _url(host: str, https: bool) -> str:
    return f"{'https' if https else 'http'}://{host}"


def _seconds(word: Word) -> float:
    try:
        seconds = float(word.value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ArgumentError(f"{word.source} is a number of seconds: got {word.value!r}")
    return seconds


def _is_true(text: str) -> bool:
    return text.strip().upper() in {"YES", "TRUE", "ON", "1"}
