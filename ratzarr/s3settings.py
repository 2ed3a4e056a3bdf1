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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from . import awsfiles
from .errors import ArgumentError
from .s3identity import MACHINES, NONE, Keys, identity
from .s3words import Said, Word, is_true, without_password

__all__ = ["PROFILES", "S3Settings", "consult", "current"]

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
            ``os.environ``, or the like; see :data:`ratzarr.s3words.NAMES`.
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
    profile = awsfiles.read_profile(
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


def _endpoint(said: Said, profile: awsfiles.Profile) -> Word | None:
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
