"""One reading of the AWS settings, for every S3 client at work here.

s3fs (our stores) and GDAL (``/vsis3/``) read different environment variables for the
same thing: a user who has set one family would reach one server with the table and
another with the raster. This module reads both families and can say the result in
either's terms. Credentials themselves (keys, profiles, instance roles) are left to each
client's own chain, which read the same variables and files; they are never kept here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["S3Settings"]


@dataclass(frozen=True, slots=True)
class S3Settings:
    """Where S3 is, and how to speak to it."""

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

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "S3Settings":
        """Read the variables of the AWS tools and of GDAL; the AWS tools' come first.

        Parameters
        ----------
        environment : mapping
            ``os.environ``, or the like. Names: ``AWS_ENDPOINT_URL_S3``,
            ``AWS_ENDPOINT_URL``, ``AWS_S3_ENDPOINT`` (with ``AWS_HTTPS``),
            ``AWS_REGION``, ``AWS_DEFAULT_REGION``, ``AWS_PROFILE``,
            ``AWS_NO_SIGN_REQUEST``, ``AWS_REQUEST_PAYER``, ``AWS_VIRTUAL_HOSTING``.
        """

        def get(*names: str) -> str | None:
            return next((environment[name] for name in names if environment.get(name)), None)

        endpoint = get("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
        if endpoint is None and (host := get("AWS_S3_ENDPOINT")):
            https = _is_true(environment.get("AWS_HTTPS", "YES"))
            endpoint = host if "://" in host else f"{'https' if https else 'http'}://{host}"
        virtual = environment.get("AWS_VIRTUAL_HOSTING")
        return cls(
            endpoint=endpoint.rstrip("/") if endpoint else None,
            region=get("AWS_REGION", "AWS_DEFAULT_REGION"),
            profile=get("AWS_PROFILE"),
            anonymous=_is_true(environment.get("AWS_NO_SIGN_REQUEST", "NO")),
            requester_pays=environment.get("AWS_REQUEST_PAYER", "").lower() == "requester",
            # A server of one's own rarely has a name per bucket; AWS's own always has.
            path_style=not _is_true(virtual) if virtual else endpoint is not None,
        )

    def s3fs_arguments(self) -> dict[str, Any]:
        """Return these settings as arguments of ``s3fs.S3FileSystem``."""
        client: dict[str, Any] = {}
        if self.region:
            client["region_name"] = self.region
        config: dict[str, Any] = {"max_pool_connections": 32}
        if self.path_style:
            config["s3"] = {"addressing_style": "path"}
        arguments: dict[str, Any] = {"client_kwargs": client, "config_kwargs": config}
        if self.endpoint:
            arguments["endpoint_url"] = self.endpoint
        if self.profile:
            arguments["profile"] = self.profile
        if self.anonymous:
            arguments["anon"] = True
        if self.requester_pays:
            arguments["requester_pays"] = True
        return arguments

    def gdal_options(self) -> dict[str, str]:
        """Return these settings as GDAL's configuration options for ``/vsis3/``."""
        options: dict[str, str] = {}
        if self.endpoint:
            scheme, _, host = self.endpoint.partition("://")
            options["AWS_S3_ENDPOINT"] = host
            options["AWS_HTTPS"] = "YES" if scheme == "https" else "NO"
            options["AWS_VIRTUAL_HOSTING"] = "FALSE" if self.path_style else "TRUE"
        if self.region:
            options["AWS_REGION"] = self.region
        if self.profile:
            options["AWS_PROFILE"] = self.profile
        if self.anonymous:
            options["AWS_NO_SIGN_REQUEST"] = "YES"
        if self.requester_pays:
            options["AWS_REQUEST_PAYER"] = "requester"
        return options


def _is_true(text: str) -> bool:
    return text.strip().upper() in {"YES", "TRUE", "ON", "1"}
