"""What the files of the AWS tools (``~/.aws``) say of one profile.

Read here once for both clients: GDAL reads the same files, but less of them (no endpoint,
no ``services``, no log-in through a company's portal).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ArgumentError

__all__ = ["Profile", "read_profile"]

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
