"""Attribute names, column keys and documents of the on-disk format, as pure functions.

docs/format.md is the specification. A table is the group ``RAT`` in the store's root. A column is
an array in that group. Its *key* is the column's name if a path and an object store can hold that
name, and an encoded form otherwise:

>>> key_of("NDVI mean"), key_of("b1/b2"), key_of("100%"), key_of("a%2Fb")
('NDVI mean', 'b1%2Fb2', '100%', 'a%252Fb')
"""

import difflib
import hashlib
import json
import re
import unicodedata
import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ratzarr.errors import (
    ArgumentError,
    DamagedError,
    FormatVersionError,
    InvalidNameError,
    NotARatZarrError,
    TooLargeError,
)
from ratzarr.format.limits import MAX_DOCUMENT_BYTES, MAX_ROWS

__all__ = [
    "CHUNKSIZE_ATTR",
    "COLUMN_ID_ATTR",
    "COLUMN_ORDER_ATTR",
    "COMPLETE_ATTR",
    "CUTS_ATTR",
    "CUTTING_ATTR",
    "DFLT_CHUNKSIZE",
    "FORMAT_VERSION",
    "FORMAT_VERSION_ATTR",
    "GROUP",
    "MISSING_ATTR",
    "MODIFICATION_ATTR",
    "NAME_ATTR",
    "OWN_COLUMN_ATTRS",
    "OWN_TABLE_ATTRS",
    "PENDING",
    "PROVENANCE_ATTR",
    "RESIZED_ATTR",
    "RESIZE_ATTR",
    "ROWCOUNT_ATTR",
    "ROWS_DONE_ATTR",
    "SHORTEST_CHUNK",
    "TABLE_KEY",
    "ZARR_JSON",
    "check_name",
    "check_table_document",
    "checked_attributes",
    "chunk_rows_of",
    "first_of",
    "from_json",
    "has_checksum",
    "is_complete",
    "is_count",
    "is_document",
    "json_value",
    "kept_attributes",
    "key_of",
    "looks_encoded",
    "mark_external",
    "near_names",
    "order_of",
    "plausible_keys",
    "root_document",
    "same_json",
    "stated_rows",
    "table_document",
    "to_json",
    "true_name",
]

Document = dict[str, Any]

GROUP = "RAT"
PENDING = ".pending"
"""The directory for replacement columns under construction, which readers ignore."""
ZARR_JSON = "zarr.json"
TABLE_KEY = f"{GROUP}/{ZARR_JSON}"
"""The key of the table's document."""

ROWCOUNT_ATTR = "ROWCOUNT"
CHUNKSIZE_ATTR = "CHUNKSIZE"
COLUMN_ORDER_ATTR = "COLUMN_ORDER"
FORMAT_VERSION_ATTR = "FORMAT_VERSION"
CONVENTIONS_ATTR = "zarr_conventions"
RESIZE_ATTR = "RESIZE"
MODIFICATION_ATTR = "MODIFICATIONLOG"
NAME_ATTR = "NAME"
COMPLETE_ATTR = "COMPLETE"
ROWS_DONE_ATTR = "ROWS_DONE"
COLUMN_ID_ATTR = "COLUMN_ID"
CUTTING_ATTR = "CUTTING"
RESIZED_ATTR = "RESIZED"
CUTS_ATTR = "CUTS"

OWN_TABLE_ATTRS = frozenset(
    {
        ROWCOUNT_ATTR,
        CHUNKSIZE_ATTR,
        COLUMN_ORDER_ATTR,
        FORMAT_VERSION_ATTR,
        CONVENTIONS_ATTR,
        RESIZE_ATTR,
    }
)
"""Attributes of the table that follow from its state. Users cannot set them."""
OWN_COLUMN_ATTRS = frozenset(
    {
        MODIFICATION_ATTR,
        NAME_ATTR,
        COMPLETE_ATTR,
        ROWS_DONE_ATTR,
        COLUMN_ID_ATTR,
        CUTTING_ATTR,
        CUTS_ATTR,
        RESIZED_ATTR,
    }
)
"""Attributes of a column that follow from its state. Users cannot set them."""

PROVENANCE_ATTR = "PROVENANCE"
"""A column's attribute: its origin."""
MISSING_ATTR = "missing_value"
"""A column's attribute: the value that stands for missing values."""
VALUE_ATTRS = frozenset({"GDAL_TYPE", "GDAL_TYPE_NAME", PROVENANCE_ATTR, "UTC_OFFSET_MINUTES"})
"""Attributes that describe a column's values. A replacement column does not inherit them."""

DFLT_CHUNKSIZE = 500000
SHORTEST_CHUNK = 1024
FORMAT_VERSION = 1

CONVENTION = {
    "uuid": "5d3c7a5e-5b0b-4c43-9c0c-9a0e6c1f7d52",
    "name": "ratzarr",
    "description": "A raster attribute table: a group with one array per column.",
}

MAX_KEY_BYTES = 200
"""File systems allow 255 bytes in a name. This leaves room for suffixes."""

MAX_RAW_BYTES = 255
"""The longest path component of a file system, and so of upstream's writer."""

_ENCODED = re.compile(r"%(?:[0-9A-Fa-f]{2}|~)")
# Control characters (C0, DEL, C1) break listings, / and \ are separators, and the two
# noncharacters are invalid in the XML of an object store's listing.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f/\\\\\ufffe\uffff]")


def check_name(name: object) -> str:
    """Return ``name`` if it is a valid column name.

    Raises
    ------
    InvalidNameError
        For objects that are not strings, the empty string, and strings with lone surrogates, which
        have no UTF-8.
    """
    if not isinstance(name, str):
        raise InvalidNameError(
            f"a column's name is a string: got {name!r} of type {type(name).__name__}"
        )
    if not name:
        raise InvalidNameError("a column's name can't be the empty string")
    if not _is_text(name):
        raise InvalidNameError(
            f"{name!r} can't be a column's name: it contains an unpaired surrogate, which is "
            "not a Unicode character"
        )
    return str(name)


def is_document(key: str) -> bool:
    """Return True if a key is that of a node's document."""
    return key == ZARR_JSON or key.endswith("/" + ZARR_JSON)


def looks_encoded(key: str) -> bool:
    """Return True if a key could be the encoded form of another name."""
    return _ENCODED.search(key) is not None


def _is_plain(name: str) -> bool:
    return not (
        name.startswith((".", "__"))
        or name == ZARR_JSON
        or looks_encoded(name)
        or _UNSAFE.search(name)
        or len(name.encode("utf-8")) > MAX_KEY_BYTES
        or not unicodedata.is_normalized("NFC", name)
    )


def key_of(name: str) -> str:
    """Return the key for a column name.

    A plain name is its own key. In other names, every character except ASCII letters, digits,
    blanks and a few signs is percent-encoded, so the key is ASCII and file systems do not
    normalize it. Beyond 200 bytes, a hash replaces the rest. Different names have different keys:
    a plain name never looks encoded, and an encoded one always does.

    Raises
    ------
    InvalidNameError
        See :func:`check_name`.
    """
    check_name(name)
    if _is_plain(name):
        return name
    encoded = "".join(
        chr(byte)
        if chr(byte).isascii() and (chr(byte).isalnum() or chr(byte) in " _-.,()=+")
        else f"%{byte:02X}"
        for byte in name.encode("utf-8")
    )
    if encoded.startswith("."):
        encoded = "%2E" + encoded[1:]
    elif encoded.startswith("_"):
        encoded = "%5F" + encoded[1:]
    elif not looks_encoded(encoded):
        # zarr.json itself and long plain names: encode the first character to mark the key as
        # encoded.
        encoded = f"%{ord(encoded[0]):02X}" + encoded[1:]
    if len(encoded) > MAX_KEY_BYTES:
        digest = hashlib.sha256(name.encode("utf-8")).hexdigest()[:40]
        encoded = f"{encoded[:120]}%~{digest}"
    return encoded


def plausible_keys(name: str) -> tuple[str, ...]:
    """Return the keys at which a column of this name may be stored.

    The first is our key. Upstream writes every name unchanged, so a name that we encode may also
    be stored unchanged, but only as a single path component.
    """
    key = key_of(name)
    raw_is_one_component = "/" not in name and "\x00" not in name and name not in (".", "..")
    raw_is_one_component &= len(name.encode("utf-8")) <= MAX_RAW_BYTES
    if key != name and raw_is_one_component and name != ZARR_JSON:
        return key, name
    return (key,)


# A document's last line is a CRC-32 in blanks and tabs, which JSON parsers ignore. A program that
# rewrites the document omits it, so it never becomes stale, unlike a value in the document.
_CHECKSUM = re.compile(rb"\n([ \t]{32})\n")
_BITS = bytes.maketrans(b"01", b" \t")
_BLANKS = b" \t\r\n"


MAX_DOCUMENT_VALUES = 2**22
"""Limit of values in a ``zarr.json``. An empty list takes 3 bytes there and over 60 in memory."""
MAX_DEPTH = 64
"""Limit of nested lists and objects, because parsers, copies and comparisons are recursive."""
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)


def to_json(document: Mapping[str, Any]) -> bytes:
    """Return the bytes of a ``zarr.json``, with a checksum.

    Raises
    ------
    TooLargeError
        If it could not be read again.
    """
    try:
        text = json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        # An unpaired surrogate, which can only come from another program's escapes.
        text = json.dumps(document, indent=2).encode("ascii")
    objection = _objection_to(text)
    if objection is not None:
        raise TooLargeError(f"a zarr.json can't be written: {objection}")
    return text + b"\n" + f"{zlib.crc32(text):032b}".encode("ascii").translate(_BITS) + b"\n"


def from_json(data: bytes, place: str) -> Document:
    """Parse a ``zarr.json``.

    Raises
    ------
    DamagedError
        If the bytes are not a JSON object or do not match their checksum; ``place`` names the
        document in the message.
    """
    _check_sum(data, place)
    objection = _objection_to(data)
    if objection is not None:
        raise DamagedError(f"{place} is damaged: {objection}")
    try:
        # Decode first: json would guess the encoding of bytes and could count other brackets than
        # we did.
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{place} is damaged: not readable as JSON ({error})") from error
    if not isinstance(document, dict) or not isinstance(
        document.setdefault("attributes", {}), dict
    ):
        raise DamagedError(f"{place} is damaged: expected a JSON object describing a Zarr node")
    return document


def _objection_to(data: bytes) -> str | None:
    """Return an explanation if a JSON document is too large to parse, otherwise None.

    Parameters
    ----------
    data : bytes
        UTF-8, possibly not JSON. The count is right up to the point where a parser would stop.
    """
    if len(data) > MAX_DOCUMENT_BYTES:
        return f"it has {len(data)} bytes, a zarr.json has at most {MAX_DOCUMENT_BYTES}"
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH and len(data) <= MAX_DOCUMENT_VALUES:
        return None
    bare = np.frombuffer(_STRING.sub(b'""', data), np.uint8)
    opens = (bare == ord("[")) | (bare == ord("{"))
    closes = (bare == ord("]")) | (bare == ord("}"))
    values = int(np.count_nonzero(opens)) + int(np.count_nonzero(bare == ord(",")))
    if values > MAX_DOCUMENT_VALUES:
        return f"it has {values} values, a zarr.json has at most {MAX_DOCUMENT_VALUES}"
    steps = opens.astype(np.int8)
    steps -= closes
    depth = int(np.cumsum(steps, dtype=np.int32).max(initial=0))
    if depth > MAX_DEPTH:
        return f"its lists and objects are nested {depth} deep, expected {MAX_DEPTH} or less"
    return None


def has_checksum(data: bytes) -> bool:
    """Return True if a ``zarr.json`` ends with a checksum. No other program writes one."""
    end = data[len(data.rstrip(_BLANKS)) :]
    return b" " in end or b"\t" in end


def mark_external(document: Document) -> None:
    """Mark a column's document as rewritten by another program.

    The other program may have changed the shape several times without recording it, so ``CUTS``
    becomes null until a resize has cleared the rows beyond the end. It may also have removed
    chunks, as zarr does if they hold only fill values, so ``ROWS_DONE`` becomes 0. An unfinished
    cut is dropped and will start again.
    """
    attributes = document["attributes"]
    if COLUMN_ID_ATTR in attributes or CUTS_ATTR in attributes:
        attributes[CUTS_ATTR] = None
    if attributes.get(COMPLETE_ATTR) is True and ROWS_DONE_ATTR in attributes:
        attributes[ROWS_DONE_ATTR] = 0
    attributes.pop(CUTTING_ATTR, None)


def _check_sum(data: bytes, place: str) -> None:
    if not has_checksum(data):
        # Written by another program, or truncated just before the checksum: the JSON is complete.
        return
    text = data.rstrip(_BLANKS)
    end = data[len(text) :]
    found = _CHECKSUM.fullmatch(end)
    if found is None or found[1] != f"{zlib.crc32(text):032b}".encode("ascii").translate(_BITS):
        raise DamagedError(
            f"{place} is damaged: its checksum does not match. (If you edited it by hand, "
            "remove the blanks and tabs at its end: they are the checksum of the earlier "
            "content.)"
        )


def root_document() -> Document:
    """Return the document of the store's root group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": {}}


def table_document(rows: int = 0, chunk_rows: int | None = None) -> Document:
    """Return the document of a table without columns."""
    return {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {
            ROWCOUNT_ATTR: rows,
            CHUNKSIZE_ATTR: chunk_rows or DFLT_CHUNKSIZE,
            COLUMN_ORDER_ATTR: [],
            FORMAT_VERSION_ATTR: FORMAT_VERSION,
            CONVENTIONS_ATTR: [CONVENTION],
        },
    }


def check_table_document(document: Document, place: str) -> None:
    """Raise an error if a document does not describe a table of a known version.

    Raises
    ------
    NotARatZarrError
        If it does not describe a Zarr 3 group.
    FormatVersionError
        If the format is newer than ours, or the version is not a number.
    DamagedError
        If the row count or chunk size is impossible.
    """
    if document.get("zarr_format") != 3 or document.get("node_type") != "group":
        raise NotARatZarrError(
            f"{place} is not a RatZarr: expected a Zarr format 3 group called {GROUP}, got "
            f"format {_short(document.get('zarr_format'))}, node type "
            f"{_short(document.get('node_type'))}"
        )
    attributes = document.get("attributes", {})
    version = attributes.get(FORMAT_VERSION_ATTR, FORMAT_VERSION)
    if not is_count(version, 1):
        raise FormatVersionError(
            f"{place}: {FORMAT_VERSION_ATTR} is {_short(version)}, not a version"
        )
    if version > FORMAT_VERSION:
        raise FormatVersionError(
            f"{place} is in format version {_short(version)}; this ratzarr knows versions up to "
            f"{FORMAT_VERSION}. A newer ratzarr is needed to read or write it."
        )
    for name, least in ((ROWCOUNT_ATTR, 0), (CHUNKSIZE_ATTR, 1)):
        value = attributes.get(name, least)
        if not is_count(value, least):
            raise DamagedError(
                f"{place}: {name} is {_short(value)}, expected an integer from {least} to "
                f"{MAX_ROWS}"
            )


def stated_rows(document: Mapping[str, Any]) -> int | None:
    """Return ROWCOUNT in a table's document; None if it has none."""
    value = document.get("attributes", {}).get(ROWCOUNT_ATTR)
    return None if value is None else int(value)


def order_of(document: Document) -> list[str] | None:
    """Return a table's column order; None if it has no usable one."""
    order = document.get("attributes", {}).get(COLUMN_ORDER_ATTR)
    if not isinstance(order, list):
        return None
    # Fast path: this runs for each listing, and nearly always all entries are strings.
    if set(map(type, order)) <= {str}:
        return list(order)
    return [name for name in order if isinstance(name, str)]


def true_name(key: str, attributes: Mapping[str, Any]) -> str:
    """Return the name of the column stored at a key.

    ``NAME`` counts only if this is its key, so that no column can claim another's name.
    """
    name = attributes.get(NAME_ATTR)
    if not isinstance(name, str):
        return key
    try:
        return name if key_of(name) == key else key
    except InvalidNameError:
        return key


def chunk_rows_of(rows: int) -> int:
    """Return the chunk size for a new table of so many rows.

    A chunk is encoded and read as a whole, so it need not exceed a short table.

    >>> chunk_rows_of(10), chunk_rows_of(20_000), chunk_rows_of(10**7)
    (1024, 20000, 500000)
    """
    return min(DFLT_CHUNKSIZE, max(SHORTEST_CHUNK, rows))


def is_complete(attributes: Mapping[str, Any]) -> bool:
    """Return False for the attributes of a column that is not complete yet."""
    return attributes.get(COMPLETE_ATTR, True) is not False


def kept_attributes(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes that a replacement column inherits: usage, units and user attributes.

    >>> kept_attributes({"units": "ha", "GDAL_USAGE": 6, "GDAL_TYPE": 1, "COMPLETE": True})
    {'units': 'ha', 'GDAL_USAGE': 6}
    """
    others = OWN_COLUMN_ATTRS | VALUE_ATTRS
    return {name: value for name, value in attributes.items() if name not in others}


def checked_attributes(attributes: Mapping[str, Any], own: frozenset[str]) -> dict[str, Any]:
    """Validate the attributes of a new document, and return them as JSON values.

    Raises
    ------
    ArgumentError
        If JSON can't hold a value, or a name is in ``own``.
    """
    for name in attributes:
        if name in own:
            raise ArgumentError(f"the attribute {name} follows from the table's state")
    return {name: json_value(name, value) for name, value in attributes.items()}


def same_json(one: Any, other: Any) -> bool:
    """Return True if two values are the same in JSON; 1, 1.0 and true differ there."""
    return json.dumps(one) == json.dumps(other)


def json_value(key: object, value: Any) -> Any:
    """Return ``value`` as JSON, or raise if JSON would not preserve it."""
    if not isinstance(key, str) or not key or not _is_text(key):
        raise ArgumentError(f"the name of an attribute must be Unicode text; got {key!r}")
    return _checked(key, value)


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _checked(key: str, value: Any, depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        raise TooLargeError(f"attribute {key!r}: nested more than {MAX_DEPTH} deep, or in itself")
    if value is None or isinstance(value, bool | np.bool_):
        return None if value is None else bool(value)
    if isinstance(value, str):
        # JSON keeps only the text of a subclass (numpy.str_, an enumeration).
        text = str.__str__(value)
        if not _is_text(text):
            raise ArgumentError(f"attribute {key!r}: {text!r} is not Unicode text")
        return text
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.float16 | np.float32):
        # This includes NaN and infinities, which zarr-python reads and writes.
        return float(value)
    if isinstance(value, list | tuple):
        return [_checked(key, item, depth + 1) for item in value]
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str) or not _is_text(name):
                raise ArgumentError(f"attribute {key!r}: JSON has no keys like {name!r}")
        return {str(name): _checked(key, item, depth + 1) for name, item in value.items()}
    raise ArgumentError(
        f"attribute {key!r}: JSON can't hold {value!r}, a {type(value).__name__}; expected str, "
        "int, float, bool, None, or lists and dicts of these"
        + (" (convert an array with .tolist())" if isinstance(value, np.ndarray) else "")
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def is_count(value: object, least: int = 0) -> bool:
    """Return True for a number of rows, or a similar number of JSON."""
    return type(value) is int and least <= value <= MAX_ROWS


def near_names(name: str, there: Collection[str]) -> str:
    """Return a hint for messages: names similar to a missing one, or else the first ones there.

    >>> near_names("ndvi", ["NDVI", "area"])
    ': did you mean "NDVI"?'
    >>> near_names("x", ["NDVI", "area"])
    "; it has 'NDVI', 'area'"
    """
    folded = {one.casefold(): one for one in there}
    near = difflib.get_close_matches(name.casefold(), folded, 3, 0.6)
    if near:
        return f": did you mean {' or '.join(f'"{folded[one]}"' for one in near)}?"
    return f"; it has {first_of(list(there)) or 'none'}"


def first_of(names: Sequence[str], most: int = 10) -> str:
    """Return the first names, and the number of others, for messages."""
    shown = ", ".join(f"{one!r:.100}" for one in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
