"""Checks of one column: its document and each of its chunks.

Chunks are read in the order of one listing. Of each chunk, only its number is kept. A column that
changes during the check is checked again (:attr:`ColumnCheck.changed`), because what
looks like damage can be another process at work.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ratzarr.columns.metadata import ColumnState
from ratzarr.errors import RatZarrError, StoreError, TooLargeError, UnsupportedCodecError
from ratzarr.format.blocks import chunk_count
from ratzarr.format.limits import MAX_DOCUMENT_BYTES
from ratzarr.format.names import (
    ZARR_JSON,
    Document,
    from_json,
    has_checksum,
    mark_external,
    true_name,
)
from ratzarr.stores.base import Objects
from ratzarr.stores.local_files import LinkError

__all__ = ["NOTES", "ColumnCheck", "Finding", "Kind", "kind_of", "rows_in_words"]


Kind = Literal[
    "damaged",
    "missing",
    "unreadable",
    "link",
    "stale",
    "unfinished",
    "resize",
    "row-count",
    "leftover",
    "dtype",
    "raster",
    "order",
    "unchecked",
    "foreign",
]

NOTES: frozenset[str] = frozenset({"order", "unchecked", "foreign"})
"""Kinds of findings that are notes, not problems."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding in a store."""

    kind: Kind
    """The kind; docs/checking.md lists all kinds."""
    key: str
    """The key of the object in the store; for several objects the first key or their prefix."""
    words: str
    """Description of the problem."""
    column: str | None = None
    """The column of the object."""
    rows: tuple[int, int] | None = None
    """The affected rows of the table: the first, and the one after the last."""
    repair: str | None = None
    """Description of the repair, or None."""
    repaired: bool = False
    """True if the repair was made."""

    @property
    def wrong(self) -> bool:
        """True for a problem, False for a note."""
        return self.kind not in NOTES

    def __str__(self) -> str:
        place = [self.key] if self.key else []
        if self.column is not None:
            place.append(f"column {self.column!r}")
        if self.rows is not None:
            first, stop = self.rows
            place.append(f"row {first}" if stop - first == 1 else f"rows {first} to {stop - 1}")
        return f"{', '.join(place)}: {self.words}" if place else self.words

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as JSON-compatible values."""
        return {
            "kind": self.kind,
            "wrong": self.wrong,
            "object": self.key,
            "column": self.column,
            "rows": None if self.rows is None else list(self.rows),
            "words": self.words,
            "repair": self.repair,
            "repaired": self.repaired,
        }


CHECKSUM = "crc32c"
SHOWN = 5
"""Number of runs of rows that are listed one by one."""


class ColumnCheck:
    """The findings of one column so far.

    Parameters
    ----------
    objects : Objects
        The store.
    prefix : str
        The directory of the column.
    key : str
        The key of the column's name.
    table_rows : int
        Rows of the table. If the column's document claims fewer, its chunks with these rows are
        not reported as beyond its end, because the document may be wrong.
    """

    def __init__(self, objects: Objects, prefix: str, key: str, table_rows: int) -> None:
        self.objects, self.prefix, self.key = objects, prefix, key
        self._table_rows = table_rows
        self.name = key
        self.data: bytes | None = None
        """The document's bytes; None if it does not exist or cannot be read."""
        self.is_gone = False
        """True if the document does not exist. False if that is unknown."""
        self.document: Document | None = None
        self.state: ColumnState | None = None
        """None if the document cannot be parsed."""
        self.findings: list[Finding] = []
        self.orphans: list[str] = []
        """Keys of chunks without a column."""
        self.beyond: list[str] = []
        """Keys of chunks beyond the column's end that are not empty."""
        self.impossible: list[str] = []
        """Keys that look like chunk keys but are invalid in this column."""
        self.changed = False
        """True if a finding can only be explained by another process at work."""
        self._seen = array("q")
        """Numbers of the chunks in the listing."""

    # ---- the document

    def load(self) -> None:
        """Read the column's document."""
        key = f"{self.prefix}/{ZARR_JSON}"
        try:
            self.data = self.objects.get(key, MAX_DOCUMENT_BYTES)
            if self.data is None:
                self.is_gone = True
                return
            self.document = from_json(self.data, key)
            if self.is_group:
                return
            self.name = true_name(self.key, self.document.get("attributes", {}))
            if not has_checksum(self.data):
                mark_external(self.document)
            self.state = ColumnState.of(self.document, key, self.name)
        except RatZarrError as error:
            self._add(kind_of(error), key, _short(error, key), self._all_rows())
            return
        codecs = self.document.get("codecs", [])
        if not any(isinstance(codec, dict) and codec.get("name") == CHECKSUM for codec in codecs):
            self._add(
                "unchecked",
                self.prefix,
                "its chunks have no checksum: damage is noticed only if a chunk can't be decoded. "
                "A copy of the column has checksums",
            )

    def _add(self, kind: Kind, key: str, words: str, rows: tuple[int, int] | None = None) -> None:
        self.findings.append(Finding(kind, key, words, self.name, rows))

    def _all_rows(self) -> tuple[int, int] | None:
        """Return the row count of an unreadable column, as far as its document tells."""
        shape = None if self.document is None else self.document.get("shape")
        if isinstance(shape, list) and shape and type(shape[0]) is int and shape[0] > 0:
            return 0, shape[0]
        return None

    @property
    def is_group(self) -> bool:
        """True if this is a group with columns of its own, not a column."""
        return self.document is not None and self.document.get("node_type") == "group"

    # ---- the chunks

    def task(self, key: str) -> "Callable[[], Finding | None] | None":
        """Process the key of an object below the column; return the remaining work."""
        inner = key[len(self.prefix) + 1 :]
        if self.is_gone or self.is_group:
            self.orphans.append(key)
            return None
        state = self.state
        if state is None:
            # The document is damaged, so the chunks cannot be decoded.
            return None
        chunk = state.chunk_of(inner)
        if chunk is None:
            self.impossible.append(key)
            return None
        if chunk >= chunk_count(max(state.rows, self._table_rows), state.chunk_rows):
            return partial(self._look_beyond, state, key)
        self._seen.append(chunk)
        return partial(self._look_into, state, key, chunk)

    def _look_into(self, state: ColumnState, key: str, chunk: int) -> Finding | None:
        first = chunk * state.chunk_rows
        rows = first, min(first + state.chunk_rows, max(state.rows, self._table_rows))

        def finding(kind: Kind, words: str) -> Finding:
            return Finding(kind, key, words, self.name, rows)

        try:
            found = self.objects.read(key, state.codec.packed_limit)
        except RatZarrError as error:
            return finding(kind_of(error), _short(error, key))
        if found is None:
            self.changed = True
            return finding("missing", "it existed a moment ago, and is now missing")
        if state.is_foreign(found.owner_tag):
            return finding(
                "stale",
                "it holds rows of an earlier column of this name, from a process that did not "
                "know of the new one. Write these rows again",
            )
        try:
            values = state.codec.decode(found.data)
        except TooLargeError as error:
            return finding("unreadable", _one_line(error))
        except Exception as error:
            return finding("damaged", f"has changed since it was written: {_one_line(error)}")
        if values.dtype.kind == "O":
            strange = {type(value).__name__ for value in values.flat if type(value) is not bytes}
            if strange:
                return finding("damaged", f"expected bytes, got {', '.join(sorted(strange))}")
        return None

    def _look_beyond(self, state: ColumnState, key: str) -> Finding | None:
        """Check that a chunk beyond the end is empty, as cut rows leave it."""
        try:
            found = self.objects.get(key, state.codec.packed_limit)
        except RatZarrError as error:
            return Finding(kind_of(error), key, _short(error, key), self.name)
        if found is None:
            return None
        try:
            blank = is_blank(state.codec.decode(found), state.fill)
        except Exception:
            blank = False
        if not (blank and state.was_cut):
            self.beyond.append(key)
        return None

    # ---- after all keys

    def missing(self, rows: int) -> list[tuple[int, int]]:
        """Return the runs of missing chunks for a number of rows: the first, and the next one."""
        assert self.state is not None  # noqa: S101 - called for readable columns only
        stop = chunk_count(rows, self.state.chunk_rows)
        seen = np.unique(np.array(self._seen, np.int64))
        edges = np.concatenate([[-1], seen[seen < stop], [stop]])
        before = np.flatnonzero(np.diff(edges) > 1)
        return [(int(edges[at]) + 1, int(edges[at + 1])) for at in before]

    def finish(self) -> None:
        """Add the findings that need all keys."""
        self.beyond.sort(key=_by_number)
        state = self.state
        if state is None:
            return
        for start, stop in self.missing(state.all_there):
            first = f"{self.prefix}/{state.chunk_name(start)}"
            words = "is missing, although it was written"
            if stop - start > 1:
                words = (
                    f"{stop - start} chunks up to {state.chunk_name(stop - 1)} are missing, "
                    "although they were written"
                )
            self._add("missing", first, words, self._rows_of(start, stop))
        if not state.complete:
            self._add_unfinished(state)

    def _rows_of(self, start: int, stop: int) -> tuple[int, int]:
        assert self.state is not None  # noqa: S101 - called for readable columns only
        return start * self.state.chunk_rows, min(stop * self.state.chunk_rows, self.state.rows)

    def _add_unfinished(self, state: ColumnState) -> None:
        gaps = [self._rows_of(start, stop) for start, stop in self.missing(state.rows)]
        there = state.rows - sum(stop - start for start, stop in gaps)
        words = "its writer is still at work, or was interrupted:"
        words += f"{there} of {state.rows} rows exist" if gaps else "all its rows exist"
        words += f", and missing {rows_in_words(gaps)}" if gaps else ""
        kept = state.never_cut(state.rows)
        words += f", those from {kept} were cut off once" if kept < state.rows else ""
        words += ". Continue it (gdalbridge copy --resume, or resumeColumn), or delete it"
        self._add("unfinished", self.prefix, words, (0, state.rows))


def _by_number(key: str) -> tuple[int, str]:
    return len(key), key


def is_blank(values: NDArray[Any], fill: Any) -> bool:
    """Return True if all values equal this one, bit by bit."""
    if values.dtype.kind in "fM":
        bits = f"i{values.dtype.itemsize}"
        return bool((values.view(bits) == np.asarray(fill, values.dtype).view(bits)).all())
    if values.dtype.kind in "OT":
        return all(value == fill for value in values.flat)
    return bool((values == fill).all())


def kind_of(error: RatZarrError) -> Kind:
    """Return the kind of finding for an error while reading an object."""
    if isinstance(error.__cause__, LinkError):
        return "link"
    if isinstance(error, StoreError | TooLargeError | UnsupportedCodecError):
        return "unreadable"
    return "damaged"


def _short(error: Exception, key: str) -> str:
    """Return an error's message without the location, which the finding has."""
    if isinstance(error.__cause__, LinkError):
        return str(error.__cause__.strerror)
    head, found, tail = str(error).partition(key)
    words = _one_line(tail if found else head).lstrip(" :")
    return words.removeprefix("is ") or _one_line(error)


def _one_line(error: object) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}..."


def rows_in_words(runs: list[tuple[int, int]]) -> str:
    """Return runs of rows as text: the first few and the number of others.

    >>> rows_in_words([(0, 5), (9, 10)])
    'rows 0 to 4, row 9'
    """
    words = [
        f"row {start}" if stop - start == 1 else f"rows {start} to {stop - 1}"
        for start, stop in runs[:SHOWN]
    ]
    if len(runs) > SHOWN:
        words.append(f"and {len(runs) - SHOWN} more runs up to row {runs[-1][1] - 1}")
    return ", ".join(words)
