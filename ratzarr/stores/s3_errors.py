"""Translate errors of S3 servers and clients into errors of ratzarr.

The HTTP status and error code, or the class of the exception, decide. Error texts differ between
servers and are often empty, and an answer to HEAD has no error code.
"""

import asyncio
import re
from collections.abc import Mapping
from typing import Any
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
    "answered_404",
    "elsewhere",
    "error_code",
    "in_words",
    "is_redirect",
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
    answer, operation = answer_to(error)
    code, status = error_code(error), _status(answer)
    if is_redirect(error):
        return RedirectError(f"{place}: {elsewhere(error)} (tried: {settings.tried()})")
    is_missing = code in _MISSING or _is_missing_by_status(code, status, operation)
    of_bucket = operation in _OF_BUCKET
    if is_missing and not of_bucket:
        return MissingObject(f"{place} does not exist")
    if code in _REFUSED or status == 412 or isinstance(error, FileExistsError):
        return ConditionRefused(f"{place} was changed by another writer")
    made, words = _classify(answer, code, status, operation, error)
    if is_missing:
        return no_bucket(place, settings)
    if code == "NoSuchBucket":
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


def _is_missing_by_status(code: str, status: int, operation: str) -> bool:
    """Return True if a 404 without an S3 error code is reliable.

    An answer to HEAD has no body. For any other request, an S3 server names the missing object; a
    web server, a proxy or a login page does not.
    """
    return status == 404 and code in ("", "404") and operation.startswith("Head")


def _is_page(answer: Mapping[str, Any]) -> bool:
    return "html" in _headers(answer).get("content-type", "").lower()


def answered_404(error: BaseException | None) -> bool:
    """Return True if a server's status was 404, with any body."""
    return _status(answer_to(error)[0]) == 404


def is_redirect(error: BaseException | None) -> bool:
    """Return True if a server has redirected the request."""
    answer, _ = answer_to(error)
    return error_code(error) in _WRONG_REGION or 300 <= _status(answer) < 400


def elsewhere(error: BaseException) -> str:
    """Return the target of a redirect, and the setting that leads there."""
    answer, _ = answer_to(error)
    code, status = error_code(error), _status(answer)
    said = " ".join(filter(None, (code if code != str(status) else "", f"HTTP {status}")))
    details, headers = answer.get("Error", {}), _headers(answer)
    region = _shown(details.get("Region") or headers.get("x-amz-bucket-region"))
    if region:
        return f"the bucket is in region {region!r} ({said}): set AWS_REGION={region}"
    place = _shown(details.get("Endpoint")) or _shown(_origin(headers.get("location")))
    if place:
        return (
            f"the server redirects to {place!r} ({said}), and redirects are not followed: if "
            "that is the right server, set AWS_ENDPOINT_URL"
        )
    return (
        f"the bucket is in another region, or at another endpoint ({said}): set AWS_REGION or "
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


def _classify(
    answer: Mapping[str, Any], code: str, status: int, operation: str, error: BaseException
) -> tuple[type[RatZarrError], str]:
    said = " ".join(filter(None, (code if code != str(status) else "", f"HTTP {status}")))
    if code in _PERMISSION or status in (401, 403):
        doing = _DOING.get(operation, "do that")
        why = _PERMISSION.get(code, _PERMISSION["AccessDenied"]).format(doing=doing)
        refused = code in _UNLISTED or (code in ("", "403") and not _is_page(answer))
        unlisted = operation == "ListObjectsV2" and refused
        made = ListingRefusedError if unlisted else StorePermissionError
        return made, f"the server refuses: {why} ({said})"
    if status == 404 and code in ("", "404"):
        return StoreError, f"{NOT_S3} (HTTP 404)"
    if answer:
        return StoreError, f"the server failed to {_DOING.get(operation, 'do it')} ({said})"
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


def answer_to(error: BaseException | None) -> tuple[Mapping[str, Any], str]:
    """Return the server's answer and the operation, even if s3fs has wrapped the error."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, Mapping):
            return response, str(getattr(error, "operation_name", ""))
        error = error.__cause__
    return {}, ""


def _status(answer: Mapping[str, Any]) -> int:
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _headers(answer: Mapping[str, Any]) -> Mapping[str, str]:
    headers: Mapping[str, str] = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return headers


def error_code(error: BaseException | None) -> str:
    """Return the server's error code, or the status if it has none, or an empty string."""
    return str(answer_to(error)[0].get("Error", {}).get("Code", ""))
