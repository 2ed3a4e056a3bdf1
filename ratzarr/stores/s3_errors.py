"""Translate errors of S3 servers and clients into errors of ratzarr.

The HTTP status and error code, or the class of the exception, decide. Error texts differ between
servers and are often empty, and an answer to HEAD has no error code.
"""

import asyncio
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import botocore.exceptions as boto
from botocore.parsers import ResponseParserError
from fsspec.exceptions import FSTimeoutError

from ratzarr.errors import (
    ListingRefusedError,
    RatZarrError,
    RedirectError,
    StoreConnectionError,
    StoreError,
    StorePermissionError,
    StoreTimeoutError,
    TableNotFoundError,
)
from ratzarr.stores.aws_config import S3Settings, without_password

__all__ = [
    "ConditionRefused",
    "MissingObject",
    "answer_to",
    "in_words",
    "no_bucket",
]

_REFUSED = {"PreconditionFailed", "412"}
_MISSING = {"NoSuchKey", "NotFound"}
NOT_S3 = (
    "the server does not speak S3: check the endpoint, and whether the network asks for a login"
)
_WRONG_REGION = {
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "PermanentRedirect",
    "Redirect",
    "TemporaryRedirect",
}
_PERMISSION = {
    "AccessDenied": "permission denied to {doing}: see the bucket's policy and the user's rights",
    "AllAccessDisabled": "all access to the bucket is disabled",
    "ExpiredToken": "the session token has expired: log in again",
    "InvalidAccessKeyId": "the access key is unknown",
    "InvalidToken": "the session token is invalid",
    "RequestTimeTooSkewed": "this computer's clock is wrong by minutes",
    "SignatureDoesNotMatch": "the secret does not belong to the access key",
    "TokenRefreshRequired": "the session token must be renewed: log in again",
}
_UNLISTED = {"AccessDenied", "AllAccessDisabled"}
_OF_BUCKET = {"DeleteObjects", "ListObjectsV2"}
"""Operations on a bucket, not on an object that could be missing."""
_DOING = {
    "CopyObject": "copy to it",
    "DeleteObjects": "delete there",
    "GetObject": "read it (nor say whether it exists, if you may not list the bucket)",
    "ListObjectsV2": "list its objects",
    "PutObject": "write it",
}
_NO_CREDENTIALS = (
    boto.CredentialRetrievalError,
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.SSOError,
    boto.TokenRetrievalError,
)
_NO_ANSWER = (
    TimeoutError,
    asyncio.TimeoutError,
    FSTimeoutError,
    boto.ConnectTimeoutError,
    boto.ReadTimeoutError,
)
_NO_CONNECTION = (
    ConnectionError,
    aiohttp.ClientError,
    boto.ConnectionError,
    boto.HTTPClientError,
)


class MissingObject(StoreError):
    """The object does not exist; the meaning depends on the operation."""


class ConditionRefused(StoreError):
    """The object does not meet the request's condition."""


class Answer(NamedTuple):
    """A server's answer to a request that failed."""

    operation: str = ""
    error: Mapping[str, Any] = {}
    """The S3 error in the answer."""
    code: str = ""
    """S3's error code, or the status if the answer has none."""
    status: int = 0
    """The HTTP status, or 0."""
    headers: Mapping[str, str] = {}
    """The HTTP headers, with names in small letters."""
    has_come: bool = False
    """False if no answer came; then the other attributes are empty."""

    @property
    def is_redirect(self) -> bool:
        """True if the server has redirected the request."""
        return self.code in _WRONG_REGION or 300 <= self.status < 400

    @property
    def is_missing(self) -> bool:
        """True if an S3 server reliably says that something is missing.

        An answer to HEAD has no body. For any other request, an S3 server names the missing
        object; a web server, a proxy or a login page does not.
        """
        by_status = self.status == 404 and self.code in ("", "404")
        return self.code in _MISSING or (by_status and self.operation.startswith("Head"))

    def __str__(self) -> str:
        code = self.code if self.code != str(self.status) else ""
        return " ".join(filter(None, (code, f"HTTP {self.status}")))


def answer_to(error: BaseException | None) -> Answer:
    """Return the server's answer, even if s3fs has wrapped the error."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, Mapping):
            details, http = response.get("Error", {}), response.get("ResponseMetadata", {})
            return Answer(
                str(getattr(error, "operation_name", "")),
                details,
                str(details.get("Code", "")),
                int(http.get("HTTPStatusCode", 0)),
                http.get("HTTPHeaders", {}),
                has_come=bool(response),
            )
        error = error.__cause__
    return Answer()


def in_words(place: str, error: BaseException, settings: S3Settings) -> RatZarrError:
    """Return the ratzarr error for a client's error.

    Parameters
    ----------
    place : str
        URL of the object.
    error : BaseException
        The client's error.
    settings : S3Settings
        The settings of the request.
    """
    answer = answer_to(error)
    if answer.is_redirect:
        return RedirectError(f"{place}: {_elsewhere(answer)} (tried: {settings.tried()})")
    if answer.is_missing:
        if answer.operation in _OF_BUCKET:
            return no_bucket(place, settings)
        return MissingObject(f"{place} does not exist")
    if answer.code in _REFUSED or answer.status == 412 or isinstance(error, FileExistsError):
        return ConditionRefused(f"{place} was changed by another writer")
    made, words = _classify(answer, error)
    if answer.code == "NoSuchBucket":
        made = TableNotFoundError
        words = f"the bucket {place.split('/')[2]!r} does not exist"
    if settings.endpoint:
        # Clients quote the endpoint as it was given.
        words = words.replace(settings.endpoint, f"{without_password(settings.endpoint)}")
    return made(f"{place}: {words} (tried: {settings.tried()})")


def no_bucket(place: str, settings: S3Settings) -> TableNotFoundError:
    """Return the error for a 404 that cannot mean a missing object."""
    return TableNotFoundError(
        f"{place}: there is no bucket {place.split('/')[2]!r}, or no S3 server at all (tried: "
        f"{settings.tried()})"
    )


def _elsewhere(answer: Answer) -> str:
    """Return the target of a redirect, and the setting that leads there."""
    region = _shown(answer.error.get("Region") or answer.headers.get("x-amz-bucket-region"))
    if region:
        return f"the bucket is in region {region!r} ({answer}): set AWS_REGION={region}"
    place = _shown(answer.error.get("Endpoint")) or _shown(_origin(answer.headers.get("location")))
    if place:
        return (
            f"the server redirects to {place!r} ({answer}), and redirects are not followed: if "
            "that is the right server, set AWS_ENDPOINT_URL"
        )
    return (
        f"the bucket is in another region, or at another endpoint ({answer}): set AWS_REGION or "
        "AWS_ENDPOINT_URL"
    )


def _shown(text: object) -> str:
    """Return text from an unknown server as printable characters of limited length."""
    return re.sub(r"[^!-~]", "", str(text or ""))[:200]


def _origin(url: str | None) -> str:
    """Return scheme and host of a URL. Its path and query may contain a signature."""
    try:
        parts = urlsplit(re.sub(r"[^!-~]", "", url or "")[:2000])
    except ValueError:
        return ""
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}" if host else ""


def _classify(answer: Answer, error: BaseException) -> tuple[type[RatZarrError], str]:
    code, doing = answer.code, _DOING.get(answer.operation, "do that")
    if code in _PERMISSION or answer.status in (401, 403):
        why = _PERMISSION.get(code, _PERMISSION["AccessDenied"]).format(doing=doing)
        is_page = "html" in answer.headers.get("content-type", "").lower()
        refused = code in _UNLISTED or (code in ("", "403") and not is_page)
        unlisted = answer.operation == "ListObjectsV2" and refused
        made = ListingRefusedError if unlisted else StorePermissionError
        return made, f"the server refuses: {why} ({answer})"
    if answer.status == 404 and code in ("", "404"):
        return StoreError, f"{NOT_S3} (HTTP 404)"
    if answer.has_come:
        return StoreError, f"the server failed to {doing} ({answer})"
    cause = _root(error)
    if isinstance(cause, _NO_CREDENTIALS):
        return StorePermissionError, (
            "no usable AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            "AWS_PROFILE; or AWS_NO_SIGN_REQUEST=YES for public data"
        )
    if isinstance(cause, PermissionError):
        return StorePermissionError, f"no permission: {error}"
    if isinstance(cause, _NO_ANSWER):
        return StoreTimeoutError, "no answer from the server"
    if isinstance(cause, _NO_CONNECTION):
        return StoreConnectionError, f"no connection to the server: {_reason(cause)}"
    if isinstance(cause, ResponseParserError):
        return StoreError, NOT_S3
    return StoreError, f"{type(error).__name__}: {error}"


def _root(error: BaseException) -> BaseException:
    # s3fs passes most errors on unchanged; if it wraps one, the cause is inside.
    while isinstance(error, OSError) and error.errno is not None and error.__cause__ is not None:
        error = error.__cause__
    return error


def _reason(error: BaseException) -> str:
    inner = getattr(error, "kwargs", {}).get("error") or error
    while (deeper := getattr(inner, "os_error", None) or inner.__cause__) is not None:
        inner = deeper
    return f"{getattr(inner, 'strerror', None) or inner}"
