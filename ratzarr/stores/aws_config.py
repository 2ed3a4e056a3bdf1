"""S3 settings, resolved once for s3fs and for GDAL.

GDAL, s3fs and the AWS tools read different environment variables and files. This module reads them
all, decides which one counts, and says where each setting came from. The result gives both sides the
same endpoint, region and credentials.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from ratzarr.errors import ArgumentError

__all__ = [
    "ELSEWHERE",
    "MACHINE",
    "MACHINES",
    "NAMES",
    "NONE",
    "PROFILES",
    "Keys",
    "Profile",
    "S3Settings",
    "Said",
    "Word",
    "consult",
    "current",
    "identity",
    "is_true",
    "read_profile",
    "without_password",
]


CONFIG, CREDENTIALS = "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"
GDALS_CREDENTIALS = "CPL_AWS_CREDENTIALS_FILE"


@dataclass(frozen=True, slots=True)
class Profile:
    """One profile, as far as it matters here."""

    name: str
    found: bool
    """Whether any file has it."""
    config_file: str
    credentials_file: str
    endpoint: str | None = None
    region: str | None = None
    addressing_style: str | None = None
    ignores_endpoints: bool = False
    """``ignore_configured_endpoint_urls``."""
    keys: tuple[str, str, str | None] | None = None
    """Key, secret and session token, where they are written there; never to be shown."""
    keys_file: str = ""
    """Which of the files they are in."""
    provider: str | None = None
    """How else it comes to credentials: a role, a portal, a program."""

    def __repr__(self) -> str:
        return f"Profile({self.name!r})"


def read_profile(name: str, words: Mapping[str, str]) -> Profile:
    """Read both files for one profile.

    Parameters
    ----------
    name : str
        ``default`` is the one that counts where none is named.
    words : mapping
        Where the files are, by the names of the environment.

    Raises
    ------
    ArgumentError
        Where a file can't be parsed.
    """
    config_file = words.get(CONFIG) or "~/.aws/config"
    credentials_file = (
        words.get(CREDENTIALS) or words.get(GDALS_CREDENTIALS) or "~/.aws/credentials"
    )
    config = _parsed(config_file)
    in_config = _section(config.get("profiles"), name)
    in_credentials = _section(_parsed(credentials_file, raw=True), name)
    # As the AWS tools have it: what the file of credentials says goes first.
    merged = {**in_config, **in_credentials}
    services = _section(_section(config.get("services"), merged.get("services")), "s3")
    provider = _provider(merged)
    keys, keys_file = _keys(in_credentials), credentials_file
    if keys is None and "credential_process" not in merged:
        keys, keys_file = _keys(in_config), config_file
    return Profile(
        name,
        bool(merged) or name in (config.get("profiles") or {}),
        config_file,
        credentials_file,
        endpoint=_text(services.get("endpoint_url")) or _text(merged.get("endpoint_url")),
        region=_text(merged.get("region")),
        addressing_style=_text(_section(merged, "s3").get("addressing_style")),
        ignores_endpoints=str(merged.get("ignore_configured_endpoint_urls")).lower() == "true",
        # A role or a portal goes before keys in the same profile, a program after them.
        keys=keys if provider in (None, "credential_process") else None,
        keys_file=keys_file,
        provider=None if keys and provider == "credential_process" else provider,
    )


def _parsed(path: str, raw: bool = False) -> Mapping[str, Any]:
    # Loaded here, as whoever has nothing on S3 need not wait for it.
    from botocore import configloader
    from botocore.exceptions import ConfigNotFound, ConfigParseError

    load = configloader.raw_config_parse if raw else configloader.load_config
    try:
        found: Mapping[str, Any] = load(str(Path(path).expanduser()))
    except ConfigNotFound:
        return {}
    except (ConfigParseError, UnicodeDecodeError) as error:
        # Not its own words: they could quote a line with a secret.
        raise ArgumentError(f"{path} can't be read as a file of the AWS tools") from error
    return found


def _section(parent: object, name: object) -> Mapping[str, Any]:
    found = parent.get(name) if isinstance(parent, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _text(value: object) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _keys(section: Mapping[str, Any]) -> tuple[str, str, str | None] | None:
    key, secret = (
        _text(section.get(f"aws_{name}")) for name in ("access_key_id", "secret_access_key")
    )
    if key is None or secret is None:
        return None
    return key, secret, _text(section.get("aws_session_token"))


def _provider(section: Mapping[str, Any]) -> str | None:
    if "role_arn" in section:
        return "role_arn"
    if "sso_session" in section or "sso_start_url" in section:
        return "sso"
    return "credential_process" if "credential_process" in section else None


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

    def of_profile(self, profile: Profile, value: str | None) -> list[Word]:
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
    profile: Profile,
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


FIRST_ANSWER = 8.0
PROFILES = ("AWS_DEFAULT_PROFILE", "AWS_PROFILE")
"""The first counts, for both clients."""


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
        machines: tuple[tuple[str, str], ...] = MACHINES,
    ) -> "S3Settings":
        """Decide each setting.

        Parameters
        ----------
        environment : mapping
            ``os.environ``, or the like; see :data:`ratzarr.stores.aws_config.NAMES`.
        words : mapping, optional
            Value and source by the same names: these go before the environment's.
        options : mapping, optional
            Arguments for ``s3fs.S3FileSystem``: these go before all else.
        defaults : mapping, optional
            Such arguments too, which go after the environment.
        machines : tuple of (str, str)
            Files that say whose machine this is, and how they begin on one of Amazon's.

        Raises
        ------
        ArgumentError
            Where a file can't be read, or a number is none.
        """
        said = Said(environment, words or {}, options or {}, defaults or {})
        return _decided(said, machines)

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


def _decided(said: Said, machines: tuple[tuple[str, str], ...]) -> S3Settings:
    named = said.decide("profile", said.of_options("profile"), said.of("AWS_DEFAULT_PROFILE"),
                        said.of("AWS_PROFILE"))  # fmt: skip
    profile = read_profile(
        named.value if named else "default",
        {name: str(word.value) for name, word in said.words.items()},
    )
    problem = None
    if named and not profile.found:
        problem = (
            f"the AWS profile {named.value!r} ({named.source}) is neither in "
            f"{profile.config_file} nor in {profile.credentials_file}"
        )
    endpoint = _endpoint(said, profile)
    region = said.decide(
        "region",
        said.of_options("client_kwargs", "region_name"),
        said.of("AWS_REGION"),
        said.of("AWS_DEFAULT_REGION"),
        said.of_profile(profile, profile.region),
    )
    styles = [
        word._replace(value=word.value == "path")
        for word in (
            *said.of_options("config_kwargs", "s3", "addressing_style"),
            *said.of_profile(profile, profile.addressing_style),
        )
    ]
    virtual = [
        one._replace(value=not is_true(one.value)) for one in said.of("AWS_VIRTUAL_HOSTING")
    ]
    path_style = said.decide("path_style", styles, virtual)
    pays = said.decide(
        "requester_pays",
        said.of_options("requester_pays"),
        [
            one._replace(value=one.value.strip().lower() == "requester")
            for one in said.of("AWS_REQUEST_PAYER")
        ],
    )
    keys, credentials, use_profile, rank = identity(said, named, profile, machines=machines)
    unsigned = said.decide(
        "anonymous",
        said.of_options("anon"),
        [one._replace(value=is_true(one.value)) for one in said.of("AWS_NO_SIGN_REQUEST")],
    )
    # Credentials that are given more urgently than the wish to have none, count.
    anonymous = unsigned is not None and bool(unsigned.value) and unsigned.rank <= rank
    first = said.decide(
        "first_answer", said.of_options("first_answer"), said.of("RATZARR_FIRST_ANSWER")
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
            f"none, requests are not signed ({said.sources['anonymous']})"
            if anonymous
            else credentials
        ),
        use_profile=None if anonymous else use_profile,
        sources=MappingProxyType(said.sources),
        conflicts=tuple(said.conflicts),
        problem=problem,
    )


def _endpoint(said: Said, profile: Profile) -> Word | None:
    ignores = [is_true(one.value) for one in said.of("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")]
    configured = [] if (ignores or [profile.ignores_endpoints])[0] else [
        *said.of("AWS_ENDPOINT_URL_S3"),
        *said.of("AWS_ENDPOINT_URL"),
        *said.of_profile(profile, profile.endpoint),
    ]  # fmt: skip
    https = all(is_true(one.value) for one in said.of("AWS_HTTPS"))
    gdals = [
        one._replace(value=one.value if "://" in one.value else _url(one.value, https))
        for one in said.of("AWS_S3_ENDPOINT")
    ]
    groups = [
        [*said.of_options("endpoint_url"), *said.of_options("client_kwargs", "endpoint_url")],
        configured,
        gdals,
    ]
    clean = [[one._replace(value=str(one.value).rstrip("/")) for one in some] for some in groups]
    # The two names of the AWS tools are one for all services and one for S3: no conflict.
    specific = [one for one in clean[1] if one.source.startswith("AWS_ENDPOINT_URL_S3")]
    if specific:
        clean[1] = specific
    return said.decide("endpoint", *clean)


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
