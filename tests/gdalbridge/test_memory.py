"""Peak memory does not depend on the number of rows: measured in processes of their own."""

import subprocess
import sys

import pytest

from tests.gdalbridge.sample_rasters import HAS_HFA

MAKE = """
import sys, numpy as np
from osgeo import gdal
path, rows = sys.argv[1], int(sys.argv[2])
ds = gdal.GetDriverByName("HFA").Create(path, 4, 4)
rat = ds.GetRasterBand(1).GetDefaultRAT()
rat.SetRowCount(rows)
for name, kind, usage in (("Histogram", 1, 1), ("Red", 0, 6), ("area", 1, 0), ("label", 2, 0)):
    rat.CreateColumn(name, kind, usage)
# The longest text first: HFA writes the whole column anew whenever a longer one comes.
rat.SetValueAsString(0, 3, "class 9972")
step = 1_000_000
for start in range(0, rows, step):
    n = np.arange(start, min(rows, start + step))
    rat.WriteArray(n.astype("f8"), 0, start)
    rat.WriteArray((n % 256).astype("i4"), 1, start)
    rat.WriteArray(n / 7, 2, start)
    rat.WriteArray(np.char.add("class ", (n % 9973).astype("U")).astype("S"), 3, start)
"""

COPY = """
import sys
from tests.memory import peak
from gdalbridge import copy_to_sidecar
report = copy_to_sidecar(sys.argv[1])
assert report.rows == int(sys.argv[2])
print(peak())
"""

CHECK = """
import sys, numpy as np
from ratzarr import RatZarr
path, rows = sys.argv[1], int(sys.argv[2])
with RatZarr(path + ".rat.zarr", readOnly=True) as table:
    assert table.rowCount == rows
    for start in (0, rows // 2 - 7, rows - 1000):
        n = np.arange(start, start + 1000)
        assert (table.readBlock("area", start, 1000) == n / 7).all()
        labels = [f"class {i % 9973}" for i in n.tolist()]
        assert table.readBlock("label", start, 1000).tolist() == labels
"""


def run(code, *args):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(not HAS_HFA, reason="this GDAL has no HFA driver")
def test_a_copy_of_millions_of_rows_from_hfa(tmp_path):
    peaks = {}
    for millions in (2, 8):
        path = tmp_path / f"{millions}.img"
        rows = millions * 1_000_000
        run(MAKE, path, rows)
        peaks[millions] = int(run(COPY, path, rows))
        run(CHECK, path, rows)
        path.unlink()
    assert peaks[2] < 300, peaks
    # What 6 million rows of these columns take is 200 MB.
    assert peaks[8] < peaks[2] + 50, peaks
    print(peaks)
