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
    "MACHINE",
    "NAMES",
    "NONE",
    "PROFILES",
    "Keys",
    "S3Settings",
    "consult",
    "current",
    "without_password",
]


class Keys(NamedTuple):
    """Credentials. Never show these."""

    key: str
    secret: str
    token: str | None = None

    def __repr__(self) -> str:
        return "Keys(...)"


class Profile(NamedTuple):
    """One profile."""

    name: str
    found: bool
    """True if a file has this profile."""
    settings: Mapping[str, str | None]
    """Its settings, by names for :meth:`_Sources.find`."""
    keys: Keys | None
    """The credentials, if the files contain them."""
    keys_file: str
    """The file with the keys."""
    provider: str | None
    """Other source of credentials: a role, a portal or a program."""


def _read_profile(name: str, config_file: str, credentials_file: str) -> Profile:
    """Read one profile from both files."""
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
        {
            "profile endpoint": _text(services.get("endpoint_url"))
            or _text(merged.get("endpoint_url")),
            "profile region": _text(merged.get("region")),
            "profile style": _text(_section(merged, "s3").get("addressing_style")),
            "profile ignores": _text(merged.get("ignore_configured_endpoint_urls")),
        },
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


def _keys(section: Mapping[str, Any]) -> Keys | None:
    key, secret = (
        _text(section.get(f"aws_{name}")) for name in ("access_key_id", "secret_access_key")
    )
    if key is None or secret is None:
        return None
    return Keys(key, secret, _text(section.get("aws_session_token")))


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

ELSEWHERE = {
    "AWS_WEB_IDENTITY_TOKEN_FILE": "a web identity (AWS_WEB_IDENTITY_TOKEN_FILE)",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "the container's role",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "the container's role",
}
"""Variables of other sources of credentials, and the name of each source."""

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
PROFILES = ("AWS_DEFAULT_PROFILE", "AWS_PROFILE")
"""The first of these variables that is set names the profile, for our client and for GDAL's."""


class Setting(NamedTuple):
    """A setting's value and source. A smaller rank takes precedence."""

    value: Any
    source: str
    rank: int


class _Sources:
    """All sources except the profile, and the source of each setting decided so far."""

    def __init__(
        self,
        environment: Mapping[str, str],
        words: Mapping[str, tuple[str, str]],
        options: Mapping[str, Any],
        defaults: Mapping[str, Any],
    ) -> None:
        self.variables = {
            name: Setting(environment[name], name, 2)
            for name in (*NAMES, *ELSEWHERE)
            if environment.get(name)
        }
        self.variables |= {
            name: Setting(value, f"{name} in {source}", 1)
            for name, (value, source) in words.items()
        }
        self._options = (
            Setting(options, "storage options", 0),
            Setting(defaults, "fsspec's configuration", 3),
        )
        self.chosen: dict[str, str] = {}
        self.conflicts: list[str] = []
        """One sentence for each setting that has two different values of the same rank."""

    def find(
        self, *places: str, convert: Callable[[Any], Any] = lambda value: value
    ) -> list[Setting]:
        """Return the values of variables, and of dotted paths in s3fs arguments."""
        found = []
        for place in places:
            if place in self.variables:
                found.append(self.variables[place])
            for options in self._options:
                value = options.value
                for name in place.split("."):
                    value = value.get(name) if isinstance(value, Mapping) else None
                if value is not None and value != "":
                    found.append(Setting(value, f"{place} in {options.source}", options.rank))
        return [one._replace(value=convert(one.value)) for one in found]

    def decide(self, what: str, *settings: list[Setting]) -> Setting | None:
        """Choose the first value of the smallest rank; report different values of that rank."""
        found = sorted((one for some in settings for one in some), key=lambda one: one.rank)
        if not found:
            return None
        chosen = found[0]
        self.chosen[what] = chosen.source
        self.conflicts += [
            f"{chosen.source} and {other.source} differ: "
            f"{without_password(str(chosen.value))} is used, "
            f"{without_password(str(other.value))} is not"
            for other in found[1:]
            if other.rank == chosen.rank and other.value != chosen.value
        ]
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


class _Identity(NamedTuple):
    """Credentials, or the profile that provides them, and their source."""

    rank: int
    source: str
    keys: Keys | None = None
    use_profile: str | None = None


def _identity(
    sources: _Sources,
    named: Setting | None,
    profile: Profile,
    machines: tuple[tuple[str, str], ...],
) -> _Identity:
    found = [
        _given_keys(
            sources,
            ("key", "username", "client_kwargs.aws_access_key_id"),
            ("secret", "password", "client_kwargs.aws_secret_access_key"),
            ("token", "client_kwargs.aws_session_token"),
        ),
        _given_keys(
            sources, ("AWS_ACCESS_KEY_ID",), ("AWS_SECRET_ACCESS_KEY",), ("AWS_SESSION_TOKEN",)
        ),
    ]
    if profile.keys or profile.provider:
        # As in the AWS tools and GDAL, keys precede a profile of the same rank.
        where = f" in {profile.keys_file}" if profile.keys else f" ({profile.provider})"
        found.append(
            _Identity(
                4 if named is None else named.rank,
                f"profile {profile.name}{where}",
                profile.keys,
                None if profile.keys else profile.name,
            )
        )
    given = [one for one in found if one is not None]
    if given:
        return min(given, key=lambda one: one.rank)
    halves = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    for half, other in (halves, halves[::-1]):
        if half in sources.variables:
            return _Identity(2, f"{half} without {other}")
    for name, where in ELSEWHERE.items():
        if name in sources.variables:
            return _Identity(4, where)
    return _Identity(5, MACHINE if _may_have_role(sources, machines) else NONE)


def _given_keys(sources: _Sources, *places: tuple[str, ...]) -> _Identity | None:
    """Return the credentials at these places for a key, a secret and a token."""
    key, secret, token = (
        min(sources.find(*some), key=lambda one: one.rank, default=None) for some in places
    )
    if key is None or secret is None:
        return None
    # Use a token only with the keys of its own source.
    is_theirs = token is not None and token.rank == key.rank
    keys = Keys(key.value, secret.value, token.value if token is not None and is_theirs else None)
    source = key.source if key.source.startswith("AWS_") else key.source.partition(" in ")[2]
    return _Identity(min(key.rank, secret.rank), source, keys)


def _may_have_role(sources: _Sources, machines: tuple[tuple[str, str], ...]) -> bool:
    """Return True if this may be an Amazon machine, which can have a role.

    On any other machine, a request to Amazon's metadata service would wait for an answer that
    never comes.
    """
    if any(one.value for one in sources.find("AWS_EC2_METADATA_DISABLED", convert=is_true)):
        return False
    if "AWS_EC2_METADATA_SERVICE_ENDPOINT" in sources.variables:
        return True
    for path, mark in machines:
        with suppress(OSError):
            return Path(path).read_text().lower().startswith(mark)
    # Unknown: the wait is a second or two.
    return True


FIRST_ANSWER = 8.0


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
    """One sentence for each setting to which one kind of source gives two different values."""
    problem: str | None = None
    """The reason if the settings cannot be used."""

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
        """Determine each setting, from these sources and the files in ``~/.aws``.

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
        sources = _Sources(environment, words or {}, options or {}, defaults or {})
        return _decided(sources, machines)

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


def _decided(sources: _Sources, machines: tuple[tuple[str, str], ...]) -> S3Settings:
    find, decide = sources.find, sources.decide
    named = decide("profile", find("profile", *PROFILES))
    config_file, credentials_file = (
        str(min(find(*names), key=lambda one: one.rank, default=Setting(default, "", 5)).value)
        for names, default in (
            (("AWS_CONFIG_FILE",), "~/.aws/config"),
            (("AWS_SHARED_CREDENTIALS_FILE", "CPL_AWS_CREDENTIALS_FILE"), "~/.aws/credentials"),
        )
    )
    profile = _read_profile(named.value if named else "default", config_file, credentials_file)
    problem = None
    if named and not profile.found:
        problem = (
            f"the AWS profile {named.value!r} ({named.source}) is neither in {config_file} nor in "
            f"{credentials_file}"
        )
    sources.variables |= {
        name: Setting(value, f"profile {profile.name}", 4)
        for name, value in profile.settings.items()
        if value is not None
    }
    endpoint = decide("endpoint", *_endpoints(sources))
    region = decide(
        "region",
        find("client_kwargs.region_name", "AWS_REGION", "AWS_DEFAULT_REGION", "profile region"),
    )
    path_style = decide(
        "path_style",
        find(
            "config_kwargs.s3.addressing_style",
            "profile style",
            convert=lambda style: style == "path",
        ),
        find("AWS_VIRTUAL_HOSTING", convert=lambda text: not is_true(text)),
    )
    pays = decide(
        "requester_pays",
        find("requester_pays"),
        find("AWS_REQUEST_PAYER", convert=lambda text: text.strip().lower() == "requester"),
    )
    identity = _identity(sources, named, profile, machines)
    unsigned = decide("anonymous", find("anon"), find("AWS_NO_SIGN_REQUEST", convert=is_true))
    # Credentials of a higher precedence override a request for unsigned access.
    anonymous = unsigned is not None and bool(unsigned.value) and unsigned.rank <= identity.rank
    if anonymous:
        source = f"none, requests are not signed ({sources.chosen['anonymous']})"
        identity = _Identity(identity.rank, source)
    first = decide("first_answer", find("first_answer", S3_FIRST_ANSWER))
    return S3Settings(
        files=(config_file, credentials_file),
        first_answer=_seconds(first) if first else FIRST_ANSWER,
        endpoint=endpoint.value if endpoint else None,
        region=region.value if region else None,
        profile=named.value if named else None,
        anonymous=anonymous,
        requester_pays=bool(pays and pays.value),
        # A custom server rarely has a host name per bucket; AWS always has.
        path_style=path_style.value if path_style else endpoint is not None,
        keys=identity.keys,
        credentials=identity.source,
        use_profile=identity.use_profile,
        sources=MappingProxyType(sources.chosen),
        conflicts=tuple(sources.conflicts),
        problem=problem,
    )


def _endpoints(sources: _Sources) -> Iterator[list[Setting]]:
    def clean(url: Any) -> str:
        return str(url).rstrip("/")

    yield sources.find("endpoint_url", "client_kwargs.endpoint_url", convert=clean)
    ignored = sources.find(
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "profile ignores", convert=is_true
    )
    if not (ignored and ignored[0].value):
        # The AWS tools have one name for all services and one for S3, so these do not conflict.
        told = sources.find(*_ENDPOINTS, "profile endpoint", convert=clean)
        yield sorted(told, key=lambda one: one.rank)[:1]
    https = all(one.value for one in sources.find("AWS_HTTPS", convert=is_true))
    scheme = "https" if https else "http"
    yield sources.find(
        "AWS_S3_ENDPOINT",
        convert=lambda host: clean(host if "://" in host else f"{scheme}://{host}"),
    )


def _seconds(setting: Setting) -> float:
    try:
        seconds = float(setting.value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ArgumentError(f"{setting.source} is a number of seconds: got {setting.value!r}")
    return seconds
