"""Speed against named rivals, in turn in one run: ``python -m tests.benchmarks [NAME ...]``.

What is printed is the median of the ratios of neighbouring runs (rival's time / ours: above
1 we are faster). Absolute times depend on the machine and are not compared with anything.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import zarr

from ratzarr import RatZarr

from . import codecs, s3clients

ROWS, CHUNK = 4_000_000, 500_000
Run = Callable[[], object]


def pair(name: str, rival: str, theirs: Run, ours: Run, runs: int = 5) -> None:
    """Time two callables in turn, after one run of each that is not counted."""
    ratios = []
    for run in range(runs + 1):
        times = []
        for call in (theirs, ours) if run % 2 else (ours, theirs):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
        if run:
            ratios.append(times[0] / times[1] if run % 2 else times[1] / times[0])
    low, mid, high = min(ratios), statistics.median(ratios), max(ratios)
    print(f"{name:42s} {mid:6.2f} ({low:.2f} to {high:.2f}) times as fast as {rival}")


def columns() -> None:
    """Write and read whole columns, against zarr-python with its defaults."""
    rng = np.random.default_rng(0)
    samples = {
        "int32": (rng.pareto(1.2, ROWS) * 20).clip(0, 2**31 - 1).astype("i4"),
        "float64": rng.normal(1200, 90, ROWS),
        "string": rng.integers(0, 10_000, ROWS).astype(np.dtypes.StringDType()),
    }
    with tempfile.TemporaryDirectory() as folder:
        table = RatZarr(Path(folder, "ours.zarr"))
        table.setRowCount(ROWS)
        group = zarr.open_group(Path(folder, "theirs.zarr"), mode="a", zarr_format=3)
        for name, values in samples.items():
            table.createColumn(name, values.dtype)
            array = group.create_array(name, dtype=values.dtype, shape=(ROWS,), chunks=(CHUNK,))

            def write(name: str = name, values: np.ndarray = values) -> None:
                for start in range(0, ROWS, CHUNK):
                    table.writeBlock(name, values[start : start + CHUNK], start)

            def write_theirs(array: zarr.Array = array, values: np.ndarray = values) -> None:
                for start in range(0, ROWS, CHUNK):
                    array[start : start + CHUNK] = values[start : start + CHUNK]

            pair(f"write {name}, blocks of a chunk", "zarr-python", write_theirs, write)
            pair(
                f"read {name}, all at once",
                "zarr-python",
                lambda array=array: array[:],
                lambda name=name: table.readBlock(name, 0, ROWS),
            )


def opening() -> None:
    """Open a raster with 400 000 rows in its table, against opening its sidecar."""
    from osgeo import gdal

    from gdalbridge import copy_to_sidecar

    with tempfile.TemporaryDirectory() as folder, gdal.ExceptionMgr():
        path = str(Path(folder, "seg.tif"))
        dataset = gdal.GetDriverByName("GTiff").Create(path, 10, 10)
        rat = gdal.RasterAttributeTable()
        rows = 400_000
        rat.SetRowCount(rows)
        for index, name in enumerate(("a", "b", "c")):
            rat.CreateColumn(name, gdal.GFT_Real, gdal.GFU_Generic)
            rat.WriteArray(np.arange(rows) / 3, index)
        dataset.GetRasterBand(1).SetDefaultRAT(rat)
        rat = dataset = None
        sidecar = copy_to_sidecar(path).target

        def theirs() -> None:
            dataset = gdal.Open(path)
            band = dataset.GetRasterBand(1)
            band.GetDefaultRAT().GetValueAsDouble(5, 1)

        def ours() -> None:
            RatZarr(sidecar, readOnly=True).readBlock("b", 5, 1)

        pair("open and read one value of 400 000 rows", "GDAL's GeoTIFF", theirs, ours)


BENCHMARKS = {
    "codecs": codecs.main,
    "columns": columns,
    "opening": opening,
    "s3clients": s3clients.main,
}


def main(names: list[str]) -> None:
    """Run the benchmarks of these names, all by default."""
    unknown = set(names) - set(BENCHMARKS)
    if unknown:
        sys.exit(f"no benchmark called {', '.join(unknown)}: there are {', '.join(BENCHMARKS)}")
    for name in names or BENCHMARKS:
        print(f"# {name}")
        BENCHMARKS[name]()


main(sys.argv[1:])
