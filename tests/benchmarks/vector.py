"""GDAL's vector programs: our driver against a driver that does nothing."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ratzarr import RatZarr
from tests.benchmarks.columns import make
from tests.benchmarks.contest import Bar, Result, result
from tests.benchmarks.scale import Scale

__all__ = ["main"]

NUMBERS = ("count", "mean", "two_decimals", "class")
BAR = Bar(1 / 0.4)
NOTHING = "a driver that does nothing"
# The fastest driver in Python: one feature, repeated in C.
STUB = """\
# gdal: DRIVER_NAME = "NOTHING"
# gdal: DRIVER_SUPPORTED_API_VERSION = [1]
# gdal: DRIVER_DCAP_VECTOR = "YES"
import itertools
from gdal_python_driver import BaseDriver


class Layer:
    name, fid_name, geometry_fields = "rat", "row", []
    fields = [
        {"name": "count", "type": "Integer"}, {"name": "mean", "type": "Real"},
        {"name": "two_decimals", "type": "Real"}, {"name": "class", "type": "Integer"},
    ]

    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        values = {"count": 21, "mean": 1200.5, "two_decimals": 12.25, "class": 3}
        feature = {"type": "OGRFeature", "id": 0, "fields": values}
        return itertools.repeat(feature, self.rows)


class Dataset:
    def __init__(self, rows):
        self.rows = rows

    def layer_count(self):
        return 1

    def layer(self, number):
        return Layer(self.rows)


class Driver(BaseDriver):
    def identify(self, filename, header, flags, open_options={}):
        return filename.startswith("NOTHING:")

    def open(self, filename, header, flags, open_options={}):
        return Dataset(int(filename.partition(":")[2]))
"""
# pyogrio reads the variable with the drivers' directories when it is imported.
READER = """
import json, sys
import pyogrio
from tests.benchmarks.contest import compare

rows, rounds = int(sys.argv[1]), int(sys.argv[2])

def read(name):
    with pyogrio.open_arrow(name, use_pyarrow=True) as (_, batches):
        found = sum(batch.num_rows for batch in batches)
    assert found == rows, (name, found)

names = dict(zip(sys.argv[3::2], sys.argv[4::2]))
print(json.dumps(compare({who: lambda n=n: read(n) for who, n in names.items()}, rounds)))
"""


def main(scale: Scale) -> Iterator[Result]:
    """Four columns of numbers, read through pyogrio's Arrow reader."""
    rows = min(scale.rows[0], 2_000_000)
    with tempfile.TemporaryDirectory(dir=scale.folder) as scratch:
        path = Path(scratch, "t.rat.zarr")
        with RatZarr(path, newRowCount=rows) as table:
            for name in NUMBERS:
                values = make(name, rows)
                table.createColumn(name, values.dtype)
                table.writeBlock(name, values, 0)
        drivers = Path(scratch, "drivers")
        drivers.mkdir()
        (drivers / "ogr_nothing.py").write_text(STUB)
        command = [sys.executable, "-c", READER, str(rows), str(scale.rounds)]
        command += ["ratzarr", f"RATZARR:{path}", NOTHING, f"NOTHING:{rows}"]
        path_of = [sys.executable, "-m", "gdalbridge", "driver-path"]
        env = os.environ | {"XDG_DATA_HOME": scratch}
        said = subprocess.run(path_of, env=env, stdout=subprocess.PIPE, text=True, check=True)
        ours = said.stdout.splitlines()[0]
        env["GDAL_PYTHON_DRIVER_PATH"] = f"{ours}{os.pathsep}{drivers}"
        done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    yield result(
        f"{rows:,} features of four numbers, by pyogrio's Arrow reader",
        NOTHING,
        json.loads(done.stdout),
        BAR,
    )
