"""A table as zarr-python reads it, from a copy of its objects: nothing of ours has a hand in it.

What the format says of rows (docs/format.md) is said here once more, in numpy: a column that is
shorter than the table ends in fill values, one that is longer is cut.
"""

import json
from dataclasses import dataclass

import numpy as np
import zarr
from zarr.buffer import default_buffer_prototype
from zarr.storage import MemoryStore


@dataclass(frozen=True, slots=True)
class RawColumn:
    """A column."""

    values: np.ndarray
    """As many rows as the table has."""
    length: int
    """Rows that its own shape has."""
    chunk_rows: int
    attributes: dict
    chunks: frozenset
    """Numbers of the chunks that are there."""

    @property
    def complete(self):
        """Whether it says that it can be read."""
        return self.attributes.get("COMPLETE", True) is not False


class RawTable:
    """A table: what its objects say.

    Parameters
    ----------
    objects
        Contents by key.
    """

    def __init__(self, objects):
        self.objects = objects
        self.there = "zarr.json" in objects and "RAT/zarr.json" in objects
        self.columns: dict[str, RawColumn] = {}
        self.attributes: dict = {}
        if not self.there:
            return
        buffer = default_buffer_prototype().buffer
        store = MemoryStore({key: buffer.from_bytes(data) for key, data in objects.items()})
        group = zarr.open_group(store, mode="r", zarr_format=3, use_consolidated=False)["RAT"]
        self.attributes = dict(group.attrs)
        self.rows = self.attributes["ROWCOUNT"]
        keys = {
            key.split("/")[1] for key in objects if key.startswith("RAT/") and key.count("/") > 1
        }
        for key in sorted(keys):
            if f"RAT/{key}/zarr.json" in objects:
                array = group[key]
                name = array.attrs.get("NAME", key)
                self.columns[name] = self._column(key, array)

    def _column(self, key, array):
        if array.attrs.get("COMPLETE", True) is False:
            # Nobody may read it, and on S3 its chunks may be another's just then.
            stored = np.full(array.shape, array.metadata.fill_value, array.dtype)
        else:
            stored = array[:]
        values = np.empty((self.rows, *array.shape[1:]), stored.dtype)
        values[...] = array.metadata.fill_value
        both = min(self.rows, len(stored))
        values[:both] = stored[:both]
        start = f"RAT/{key}/c/"
        chunks = {
            int(name.removeprefix(start).split("/")[0])
            for name in self.objects
            if name.startswith(start)
        }
        return RawColumn(
            values, len(stored), array.chunks[0], dict(array.attrs), frozenset(chunks)
        )

    @property
    def order(self):
        """The columns' order, as the table notes it."""
        return self.attributes["COLUMN_ORDER"]

    def strangers(self, *, emptied=False):
        """Return the keys that belong to no table of ours in peace: what should have been cleared.

        ``emptied``: where objects can't be removed on condition, chunks that were cut off stay as
        empty ones.
        """
        ours = {"zarr.json", "RAT/zarr.json"}
        for name, column in self.columns.items():
            needed = -(-max(column.length, self.rows) // column.chunk_rows)
            key = next(
                key.split("/")[1]
                for key in self.objects
                if key.startswith("RAT/") and key.endswith("/zarr.json") and key.count("/") == 2
                and json.loads(self.objects[key])["attributes"].get("NAME", key.split("/")[1]) == name
            )  # fmt: skip
            ours.add(f"RAT/{key}/zarr.json")
            ours |= {
                other
                for other in self.objects
                if other.startswith(f"RAT/{key}/c/")
                and (
                    int(other.split("/")[3]) < needed or (emptied and "CUTS" in column.attributes)
                )
            }
        return sorted(set(self.objects) - ours)


def same(left, right):
    """Return whether two arrays are equal, in dtype, shape and every value; NaN is NaN."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype.kind in "fc":
        return bool(
            np.array_equal(left.view(f"u{left.itemsize}"), right.view(f"u{left.itemsize}"))
        )
    if left.dtype.kind == "M":
        return bool(np.array_equal(left.view("i8"), right.view("i8")))
    return bool((left == right).all())


def check(raw, rows, **columns):
    """Fail unless the table has just these rows and columns."""
    assert raw.there, "there is no table"
    assert raw.rows == rows, f"{raw.rows} rows, expected {rows}"
    assert set(raw.columns) == set(columns), f"columns {set(raw.columns)}, expected {set(columns)}"
    for name, values in columns.items():
        column = raw.columns[name]
        assert column.complete, f"column {name!r} says that it is not complete"
        found = column.values
        assert same(found, np.asarray(values)), (
            f"column {name!r} differs: {found.tolist()[:40]} instead of "
            f"{np.asarray(values).tolist()[:40]}"
        )
