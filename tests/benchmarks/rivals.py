"""Other ways to keep a table on a disk: each writes and reads columns by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

from ratzarr import RatZarr

__all__ = ["Numpy", "Ours", "Parquet", "PlainZarr", "disk_bytes"]

CHUNK = 500_000
TEXT = np.dtypes.StringDType()


def disk_bytes(folder: Path) -> int:
    """Return what files below a folder, or a file, hold."""
    files = [folder] if folder.is_file() else folder.rglob("*")
    return sum(path.stat().st_size for path in files if path.is_file())


class Ours:
    """ratzarr, through the interface that everyone uses."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "ours.rat.zarr"

    def write(self, columns: Mapping[str, np.ndarray], block: int = CHUNK) -> None:
        """Write whole columns, block by block, as scripts do."""
        with RatZarr(self.path) as table:
            rows = len(next(iter(columns.values())))
            if table.rowCount != rows:
                table.setRowCount(rows)
            for name, values in columns.items():
                table.createColumn(name, values.dtype)
                for start in range(0, rows, block):
                    table.writeBlock(name, values[start : start + block], start)

    def write_whole(self, columns: Mapping[str, np.ndarray]) -> None:
        """Write whole columns with one call for each, as whoever has them in memory would."""
        self.write(columns, len(next(iter(columns.values()))))

    def read(self, names: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Read whole columns."""
        with RatZarr(self.path, readOnly=True) as table:
            return {name: table.readBlock(name, 0, table.rowCount) for name in names}


class PlainZarr:
    """A group of arrays with zarr's default codecs, written as the older module writes."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "plain.zarr"

    def write(self, columns: Mapping[str, np.ndarray], block: int = CHUNK) -> None:
        """Write whole columns, block by block."""
        group = zarr.open_group(self.path, mode="a", zarr_format=3)
        for name, values in columns.items():
            array = group.create_array(
                name, dtype=values.dtype, shape=values.shape, chunks=(CHUNK,)
            )
            for start in range(0, len(values), block):
                array[start : start + block] = values[start : start + block]

    def read(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Read whole columns."""
        group = zarr.open_group(self.path, mode="r", zarr_format=3)
        found = {}
        for name in names:
            array = group[name]
            assert isinstance(array, zarr.Array)
            found[name] = array[:]
        return found


class Parquet:
    """A Parquet file for each column, as columns are added one by one; row groups of a chunk."""

    def __init__(self, folder: Path, compression: str) -> None:
        self.path, self.compression = folder / f"parquet-{compression}", compression

    def write(self, columns: Mapping[str, np.ndarray]) -> None:
        """Write whole columns."""
        self.path.mkdir(exist_ok=True)
        for name, values in columns.items():
            table = pa.table({name: pa.array(values)})
            pq.write_table(
                table,
                self.path / f"{name}.parquet",
                compression=self.compression,
                row_group_size=CHUNK,
            )

    def read(self, names: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Read whole columns, as numpy has them."""
        found = {}
        for name in names:
            column = pq.read_table(self.path / f"{name}.parquet")[name]
            values = column.to_numpy()
            found[name] = values.astype(TEXT) if values.dtype.kind == "O" else values
        return found


class Numpy:
    """Plain files of bytes, not packed: the floor. Numbers only."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "numpy"

    def write(self, columns: Mapping[str, np.ndarray]) -> None:
        """Write whole columns."""
        self.path.mkdir(exist_ok=True)
        for name, values in columns.items():
            np.save(self.path / f"{name}.npy", values)

    def read(self, names: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Read whole columns."""
        return {name: np.load(self.path / f"{name}.npy") for name in names}
