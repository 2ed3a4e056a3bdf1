"""S3 settings, resolved once for s3fs and for GDAL.

GDAL, s3fs and the AWS tools read different environment variables and files. This module reads them
all, decides which one counts, and says where each setting came from. The result gives both sides the
same endpoint, region and credentials.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from ratzarr.errors import ArgumentError
from ratzarr.settings import S3_FIRST_ANSWER, environment

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
    """The settings of one profile."""

    name: str
    found: bool
    """True if a file has this profile."""
    config_file: str
    credentials_file: str
    endpoint: str | None = None
    region: str | None = None
    addressing_style: str | None = None
    ignores_endpoints: bool = False
    """``ignore_configured_endpoint_urls``."""
    keys: tuple[str, str, str | None] | None = None
    """Key, secret and session token, if the files contain them. Never show these."""
    keys_file: str = ""
    """The file with the keys."""
    provider: str | None = None
    """Other source of credentials: a role, a portal or a program."""

    def __repr__(self) -> str:
        return f"Profile({self.name!r})"


def read_profile(name: str, words: Mapping[str, str]) -> Profile:
    """Read one profile from both files.

    Parameters
    ----------
    name : str
        ``default`` is the profile used when none is named.
    words : mapping
        Locations of the files, by environment variable.

    Raises
    ------
    ArgumentError
        If a file cannot be parsed.
    """
    config_file = words.get(CONFIG) or "~/.aws/config"
    credentials_file = (
        words.get(CREDENTIALS) or words.get(GDALS_CREDENTIALS) or "~/.aws/credentials"
    )
    config = _parsed(config_file)
    in_config = _section(config.get("profiles"), name)
    in_credentials = _section(_parsed(credentials_file, raw=True), name)
    # As in the AWS tools, the credentials file takes precedence.
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
        # A role or a portal precedes keys in the same profile; a program comes after them.
        keys=keys if provider in (None, "credential_process") else None,
        keys_file=keys_file,
        provider=None if keys and provider == "credential_process" else provider,
    )


def _parsed(path: str, raw: bool = False) -> Mapping[str, Any]:
    # Imported here, so that programs without S3 do not wait for it.
    from botocore import configloader
    from botocore.exceptions import ConfigNotFound, ConfigParseError

    load = configloader.raw_config_parse if raw else configloader.load_config
    try:
        found: Mapping[str, Any] = load(str(Path(path).expanduser()))
    except ConfigNotFound:
        return {}
    except (ConfigParseError, UnicodeDecodeError) as error:
        # The parser's own message could quote a line with a secret.
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
    S3_FIRST_ANSWER,
)
"""Every variable name of either family."""

ELSEWHERE = (
    ("AWS_WEB_IDENTITY_TOKEN_FILE", "a web identity (AWS_WEB_IDENTITY_TOKEN_FILE)"),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "the container's role"),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "the container's role"),
)
ENVIRONMENT = "the environment"
OPTIONS = "storage options"


class Word(NamedTuple):
    """A setting's value and source. A smaller rank takes precedence."""

    value: Any
    source: str
    rank: int


class Said:
    """All settings found, and the decisions made so far."""

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
        """The source of each decided setting."""
        self.conflicts: list[str] = []
        """Sentences about settings with different values in one place."""

    def of(self, name: str) -> list[Word]:
        """Return the value of a variable, with the variable's name in its source."""
        word = self.words.get(name)
        if word is None:
            return []
        where = name if word.source == ENVIRONMENT else f"{name} in {word.source}"
        return [word._replace(source=where)]

    def of_options(self, *path: str) -> Iterator[Word]:
        """Yield the settings in s3fs arguments."""
        for word in self.options:
            value: Any = word.value
            for name in path:
                value = value.get(name) if isinstance(value, Mapping) else None
            if value is not None and value != "":
                yield word._replace(value=value, source=f"{'.'.join(path)} in {word.source}")

    def of_profile(self, profile: Profile, value: str | None) -> list[Word]:
        """Return the settings in a profile."""
        return [Word(value, f"profile {profile.name}", 4)] if value else []

    def decide(self, what: str, *said: Any) -> Word | None:
        """Choose the first value of the smallest rank; report different values of that rank."""
        words = sorted((word for some in said for word in some), key=lambda word: word.rank)
        if not words:
            return None
        chosen: Word = words[0]
        self.sources[what] = chosen.source
        for other in words[1:]:
            if other.rank == chosen.rank and other.value != chosen.value:
                self.conflicts.append(
                    f"{chosen.source} and {other.source} differ: "
                    f"{without_password(str(chosen.value))} is used, "
                    f"{without_password(str(other.value))} is not"
                )
        return chosen


def without_password(url: str | None) -> str | None:
    """Return a URL without its password."""
    if not url or "@" not in url:
        return url
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def is_true(text: str) -> bool:
    """Return True if a word means yes, by GDAL's rules."""
    return text.strip().upper() in {"YES", "TRUE", "ON", "1"}


MACHINES = (
    ("/sys/devices/virtual/dmi/id/sys_vendor", "amazon ec2"),
    ("/sys/hypervisor/uuid", "ec2"),
)
"""Files that identify the machine's vendor, and their contents on Amazon's machines."""
NONE = "none found"
MACHINE = "none set; the role of this machine, if it has one"


class Keys(NamedTuple):
    """Credentials. Never show these."""

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
    """Return the keys, their source, the profile to ask for credentials, and the rank.

    Parameters
    ----------
    machines : tuple of (str, str)
        Files that identify the machine's vendor, and their contents on Amazon's machines.
    """
    found = [one for one in (_keys_of_options(said), _keys_of_words(said)) if one is not None]
    rank = 4 if named is None else named.rank
    if profile.keys or profile.provider:
        # As in the AWS tools and GDAL, keys precede a profile of the same rank.
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
    """Return True if this may be an Amazon machine, which can have a role.

    On any other machine, a request to Amazon's metadata service would wait for an answer that
    never comes.
    """
    if any(is_true(one.value) for one in said.of("AWS_EC2_METADATA_DISABLED")):
        return False
    if "AWS_EC2_METADATA_SERVICE_ENDPOINT" in said.words:
        return True
    for path, mark in machines:
        with suppress(OSError):
            return Path(path).read_text().lower().startswith(mark)
    # Unknown: the wait is a second or two.
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
    # Use a token only with the keys of its own source.
    tokens = [one for one in said.of("AWS_SESSION_TOKEN") if one.rank == key[0].rank]
    keys = Keys(key[0].value, secret[0].value, tokens[0].value if tokens else None)
    return min(key[0].rank, secret[0].rank), keys, key[0].source, None


FIRST_ANSWER = 8.0
PROFILES = ("AWS_DEFAULT_PROFILE", "AWS_PROFILE")
"""The first name counts, for both clients."""


@dataclass(frozen=True, slots=True)
class S3Settings:
    """The S3 server, its addressing, and the credentials."""

    endpoint: str | None = None
    """URL of a server other than AWS's own, without a trailing slash."""
    region: str | None = None
    """Region, e.g. ``ap-southeast-2``."""
    profile: str | None = None
    """Section of ``~/.aws`` to use."""
    anonymous: bool = False
    """True if requests are not signed."""
    requester_pays: bool = False
    """True if the requester pays."""
    path_style: bool = False
    """True for ``endpoint/bucket/key``, False for ``bucket.endpoint/key``."""
    keys: Keys | None = field(default=None, repr=False)
    """The credentials, if written in a file or variable. Otherwise the clients find them
    themselves."""
    credentials: str = NONE
    """The source of the credentials, without secrets."""
    use_profile: str | None = None
    """The profile that provides the credentials, if it does not contain them."""
    files: tuple[str, str] = ("~/.aws/config", "~/.aws/credentials")
    """The AWS tools' files of settings and of credentials."""
    first_answer: float = FIRST_ANSWER
    """Time limit for a server's first answer, in seconds, over all attempts."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """The source of each setting, by its name."""
    conflicts: tuple[str, ...] = ()
    """Sentences about settings with different values in one place."""
    problem: str | None = None
    """The reason if the settings cannot be used."""

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
        """Determine each setting.

        Parameters
        ----------
        environment : mapping
            ``os.environ`` or a similar mapping; see :data:`ratzarr.stores.aws_config.NAMES`.
        words : mapping, optional
            Value and source by the same names. These precede the environment.
        options : mapping, optional
            Arguments for ``s3fs.S3FileSystem``. These precede everything else.
        defaults : mapping, optional
            Further arguments of this kind, which come after the environment.
        machines : tuple of (str, str)
            Files that identify the machine's vendor, and their contents on Amazon's machines.

        Raises
        ------
        ArgumentError
            If a file cannot be read, or a number is invalid.
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
            # GDAL prefers the second of these, and most tools the first.
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
            # Set an empty token too: a token from another source must not be sent with these keys.
            options["AWS_SESSION_TOKEN"] = known.token or ""
        return options

    @property
    def keys_in_environment(self) -> bool:
        """True if both clients find the keys by themselves."""
        of_environment = self.credentials == "AWS_ACCESS_KEY_ID"
        # With a profile, s3fs does not look there.
        return of_environment and self.sources.get("profile") in (None, *PROFILES)

    def tried(self) -> str:
        """Return a short text with the server and the source of credentials, without secrets."""
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
    """Register a source of settings that precedes the environment.

    Parameters
    ----------
    source : callable
        Takes a bucket's name; returns values and sources by the variable names of either family.
    """
    if source not in _elsewhere:
        _elsewhere.append(source)


def current(bucket: str, options: Mapping[str, Any] | None = None) -> S3Settings:
    """Return the settings in force for a bucket.

    Parameters
    ----------
    bucket : str
        Name of the bucket. Some settings may apply to one bucket only.
    options : mapping, optional
        Arguments for ``s3fs.S3FileSystem``, which precede everything else.
    """
    import fsspec.config

    words: dict[str, tuple[str, str]] = {}
    for source in _elsewhere:
        words.update(source(bucket))
    # s3fs itself would add these to our arguments.
    defaults = fsspec.config.conf.get("s3", {})
    return S3Settings.resolve(environment, words=words, options=options, defaults=defaults)


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
    # Credentials of a higher precedence override a request for unsigned access.
    anonymous = unsigned is not None and bool(unsigned.value) and unsigned.rank <= rank
    first = said.decide("first_answer", said.of_options("first_answer"), said.of(S3_FIRST_ANSWER))
    return S3Settings(
        files=(profile.config_file, profile.credentials_file),
        first_answer=_seconds(first) if first else FIRST_ANSWER,
        endpoint=endpoint.value if endpoint else None,
        region=region.value if region else None,
        profile=named.value if named else None,
        anonymous=anonymous,
        requester_pays=bool(pays and pays.value),
        # A custom server rarely has a host name per bucket; AWS always has.
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
    # The AWS tools have one name for all services and one for S3, so these do not conflict.
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
