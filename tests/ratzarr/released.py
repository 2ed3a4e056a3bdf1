"""The released module 1.0.2 in its own steps: what it does to a store, by zarr-python alone.

It keeps no row count but in memory: at its opening that is the length of the first column that
zarr lists, 0 without columns. Its resizes change the shape of each array and nothing else, by
array objects that it opened once and keeps.
"""

import datetime as dt
import warnings

import zarr

DEFAULT_CHUNK = 500_000


class Released:
    """One instance of the module.

    Parameters
    ----------
    store
        A path, or one of zarr's stores.
    """

    def __init__(self, store):
        self.group = zarr.open_group(store, path="RAT", mode="a", zarr_format=3)
        self._arrays = {}
        self._logged = set()
        names = list(self.group.keys())
        self.rows = self._array(names[0]).shape[0] if names else 0
        if "CHUNKSIZE" not in self.group.attrs:
            self.group.attrs["CHUNKSIZE"] = DEFAULT_CHUNK
        self.chunk = self.group.attrs["CHUNKSIZE"]

    def _array(self, name):
        if name not in self._arrays:
            self._arrays[name] = self.group[name]
        return self._arrays[name]

    def resize(self, rows, stop_after=None):
        """Set the row count; ``stop_after`` so many columns the process is killed."""
        self.rows = rows
        for number, name in enumerate(sorted(self.group.keys())):
            if number == stop_after:
                return
            array = self._array(name)
            array.resize((rows, *array.shape[1:]))

    def create(self, name, dtype, width=1):
        """Create a column, with the rows that this instance believes in."""
        more = () if width == 1 else (width,)
        with warnings.catch_warnings():
            # Of text zarr says that its specification is not stable.
            warnings.simplefilter("ignore")
            array = self.group.create_array(
                name, dtype=dtype, shape=(self.rows, *more), chunks=(self.chunk, *more)
            )
        self._arrays[name] = array
        array.attrs["MODIFICATIONLOG"] = []

    def delete(self, name):
        """Delete a column."""
        del self.group[name]
        self._arrays.pop(name, None)

    def write(self, name, block, start):
        """Write rows, and then one event for the first write of this instance."""
        array = self._array(name)
        array[start : start + len(block)] = block
        if name not in self._logged:
            self._logged.add(name)
            events = array.attrs.get("MODIFICATIONLOG", [])
            now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            array.attrs["MODIFICATIONLOG"] = [*events, (now, "someone", ["script.py"])]

    def read(self, name):
        """Return a whole column."""
        return self._array(name)[:]
