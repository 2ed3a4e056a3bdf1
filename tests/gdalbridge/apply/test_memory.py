"""Peak memory of a script does not depend on the number of rows: in processes of their own."""

import subprocess
import sys

import pytest

CODE = """
import sys
import numpy as np
from tests.memory import peak
from gdalbridge import ratapplier
from ratzarr import RatZarr

path, rows, chunk = sys.argv[1], int(sys.argv[2]), 20_000
with RatZarr(path, newRowCount=rows, newChunkSize=chunk) as table:
    table.createColumns({"x": "f8", "y": "i4", "text": "str"})
    texts = np.array([f"class {n % 97}" for n in range(chunk)], np.dtypes.StringDType())
    for start in range(0, rows, chunk):
        n = np.arange(start, start + chunk)
        table.writeBlocks({"x": n / 7, "y": n % 1000, "text": texts}, start)

def function(info, inputs, outputs):
    outputs.t.total = inputs.t.x + inputs.t.y
    outputs.t.copied = inputs.t.text

def some(info, inputs, outputs):
    outputs.out.x = inputs.t.x[inputs.t.y % 3 == 0]

rats, out = ratapplier.RatAssociations(), ratapplier.RatAssociations()
rats.t = ratapplier.RatZarrHandle(path)
out.out = ratapplier.RatZarrHandle(path.replace("t.rat", "out.rat"))
controls = ratapplier.RatApplierControls()
controls.setMemory(8 * 2**20)
ratapplier.apply(function, rats, rats, controls=controls)
controls.setExecutor("threads", 2)
ratapplier.apply(some, rats, out, controls=controls)
with RatZarr(path, readOnly=True) as table:
    n = np.arange(rows - 1000, rows)
    assert (table.readBlock("total", rows - 1000, 1000) == n / 7 + n % 1000).all()
print(peak())
"""


@pytest.mark.main_env_only
def test_millions_of_rows(tmp_path):
    peaks = {}
    for rows in (500_000, 2_500_000):
        done = subprocess.run(
            [sys.executable, "-c", CODE, f"{tmp_path}/{rows}t.rat.zarr", str(rows)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        peaks[rows] = int(done.stdout)
    # What 2 million rows of these columns take is 100 MB.
    assert peaks[2_500_000] < peaks[500_000] + 40, peaks
