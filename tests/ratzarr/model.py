"""A table in plain numpy: what its rows, columns and attributes ought to be.

A change takes hold at once and for everybody, and each is a tick of a clock. What an instance that
looked at the table at some tick may still believe is what was so at that tick or after it.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.dtypes import StringDType

from ratzarr.format.dtypes import BYTES

KINDS = {
    **{f"{sign}{bits}": np.dtype(f"{sign}{bits}") for sign in ("int", "uint")
       for bits in (8, 16, 32, 64)},
    **{f"float{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    "bool": np.dtype(bool),
    "seconds": np.dtype("M8[s]"),
    "weeks": np.dtype("M8[2W]"),
    "string": StringDType(),
    "fixed bytes": np.dtype("S3"),
    "bytes": BYTES,
}  # fmt: skip
"""What columns are made of; none has the same bytes for its values as another."""

TEXTS = [
    "",
    "a",
    " both ends ",
    "größe",
    "\0",
    "a\0",
    "zero\0inside",
    "表" * 9,
    "\U0001f600",
    "\n",
]
FIXED = [b"", b"a", b"\xff", b"a\0b", b" ", b"xyz"]
LOOSE = [b"", b"\0", b"a\0", b"\xff\xfe", b"x" * 40]


def values_of(dtype, shape, random):
    """Return values of every sort that a dtype has: NaNs with payloads, NaT, the extremes."""
    count = int(np.prod(shape))
    if dtype.kind in "TSO":
        pool = {"T": TEXTS, "S": FIXED, "O": LOOSE}[dtype.kind]
        found = np.empty(count, dtype)
        for i, which in enumerate(random.integers(len(pool), size=count)):
            found[i] = pool[which]
        return found.reshape(shape)
    if dtype.kind == "b":
        return random.integers(2, size=shape).astype(bool)
    # Any bits are a value.
    found = np.frombuffer(random.bytes(count * dtype.itemsize), dtype).copy()
    special = {
        "f": [np.nan, np.inf, -0.0, 0.0, 1.0],
        "M": ["NaT"],
        "i": [np.iinfo(dtype).min, np.iinfo(dtype).max] if dtype.kind == "i" else [],
        "u": [0, np.iinfo(dtype).max] if dtype.kind == "u" else [],
    }[dtype.kind]
    if special:
        some = random.random(count) < 0.3
        pool = np.array(special, dtype)
        found[some] = pool[random.integers(len(pool), size=int(some.sum()))]
    return found.reshape(shape)


def plain_values_of(dtype, shape, random):
    """Return values that numbers of any sort can hold; where there are none, of every sort."""
    if dtype.kind not in "iufb":
        return values_of(dtype, shape, random)
    return random.integers(2, size=shape).astype(dtype)


def kinds_like(dtype):
    """Return the kinds of as many bytes: chunks of one can be unpacked as chunks of another."""
    return [
        kind
        for kind, other in KINDS.items()
        if dtype.kind not in "TO"
        and other.kind not in "TO"
        and other.itemsize == dtype.itemsize
        and other != dtype
    ]


def misfit_of(dtype):
    """Return a value that a column of this dtype can't hold."""
    return {
        "i": 2**63, "u": -1, "b": 2, "f": "a", "M": 3, "T": b"\xff", "S": b"four", "O": "text",
    }[dtype.kind]  # fmt: skip


def empty_of(dtype):
    """Return what rows hold that nobody wrote, where no fill value was given."""
    if dtype.kind in "TSO":
        return "" if dtype.kind == "T" else b""
    return np.array("NaT" if dtype.kind == "M" else 0, dtype)[()]


def filled(shape, dtype, value):
    """Return an array of one value, every bit of it kept."""
    found = np.empty(shape, dtype)
    found.fill(value)
    return found


def same(one, other):
    """Return whether two arrays are equal in dtype, shape and every bit."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    if one.dtype.kind in "OT":
        # By type as well: b"a" is not "a", and neither is numpy's own bytes that drop zeros.
        return [(type(v), v) for v in one.flat] == [(type(v), v) for v in other.flat]
    return one.tobytes() == other.tobytes()


@dataclass(eq=False)
class ColumnModel:
    """A column, from its creation on; one created anew of its name is another."""

    name: str
    dtype: np.dtype
    width: int
    fill: object
    chunk_rows: int
    values: np.ndarray
    attributes: dict
    complete: bool
    id: str = ""
    """What its document calls it."""
    events: int = 0
    """How many instances have written to it."""
    written: set = field(default_factory=set)
    """Chunks of which rows were written."""
    kept: float = float("inf")
    """How many rows were never cut off."""

    def shape(self, rows):
        """Return the shape of a block."""
        return (rows,) if self.width == 1 else (rows, self.width)

    def blank(self, rows):
        """Return rows that nobody wrote."""
        return filled(self.shape(rows), self.dtype, self.fill)

    def chunks(self, start, stop):
        """Return the numbers of the chunks that hold these rows."""
        return range(start // self.chunk_rows, -(-stop // self.chunk_rows)) if start < stop else ()

    def parts(self, start, stop):
        """Yield each chunk that holds rows of these with the first and the end of them."""
        for chunk in self.chunks(start, stop):
            first = chunk * self.chunk_rows
            yield chunk, max(start, first), min(stop, first + self.chunk_rows)

    def write(self, start, block):
        """Write rows; those beyond the end are none."""
        stop = min(start + len(block), len(self.values))
        if start < stop:
            self.values[start:stop] = block[: stop - start]
            self.written |= set(self.chunks(start, stop))

    def resize(self, rows):
        """Cut rows off, or add empty ones."""
        was = len(self.values)
        keep = min(rows, was)
        values = self.blank(rows)
        values[:keep] = self.values[:keep]
        self.values = values
        self.written &= set(self.chunks(0, keep))
        if keep < was:
            self.kept = min(self.kept, keep)

    def missing(self, *, cut=True):
        """Return runs of rows in chunks that nobody wrote, or of which rows were cut off."""
        runs = []
        for chunk, first, stop in self.parts(0, len(self.values)):
            if chunk in self.written and (stop <= self.kept or not cut):
                continue
            if runs and runs[-1][1] == first:
                runs[-1] = (runs[-1][0], stop)
            else:
                runs.append((first, stop))
        return runs


class TableModel:
    """A table."""

    def __init__(self):
        self.clock = 0
        self.rows, self.chunk_rows = 0, 500000
        self.attributes: dict = {}
        self.columns: dict[str, ColumnModel] = {}
        """In order of creation."""
        self.pending: dict[str, ColumnModel] = {}
        """Columns that are to take another's place."""
        self._history: list[tuple[int, dict]] = []
        self.tick()

    def tick(self):
        """Remember how things are now."""
        self.clock += 1
        now = {
            "rows": self.rows,
            "chunk_rows": self.chunk_rows,
            "attributes": dict(self.attributes),
            "columns": {
                name: (column, dict(column.attributes), column.events)
                for name, column in self.columns.items()
            },
        }
        self._history.append((self.clock, now))

    def since(self, clock, what):
        """Return what this was at a tick and after it."""
        return [now[what] for tick, now in self._history if tick >= clock]

    def lowest_since(self, clock):
        """Return how few rows there were."""
        return min(self.since(clock, "rows"))

    def column_since(self, clock, name):
        """Return (column, attributes, events) of each state that a name's column was in."""
        return [now[name] for now in self.since(clock, "columns") if name in now]

    def resize(self, rows):
        """Set the row count."""
        self.rows = rows
        for column in (*self.columns.values(), *self.pending.values()):
            column.resize(rows)
        self.tick()

    def create(self, column, *, pending):
        """Put a column at the end."""
        (self.pending if pending else self.columns)[column.name] = column
        self.tick()

    def delete(self, name):
        """Delete the column that everybody sees."""
        del self.columns[name]
        self.tick()

    def put_in_place(self, column):
        """Let a column that was being built be the one that everybody sees."""
        del self.pending[column.name]
        column.complete = True
        # In the place of the old one, in the order too.
        self.columns[column.name] = column
        self.tick()
