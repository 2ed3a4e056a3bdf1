"""Any order of reading, writing, growing, flushing and attaching again: as numpy has it."""

import numpy as np
import pytest
from osgeo import gdal

from gdalbridge import attach
from gdalbridge.attached_rat.open_sidecars import shared_table
from ratzarr import RatZarr
from tests.gdalbridge.attached_rat.test_rat import raster
from tests.gdalbridge.sample_rasters import INTEGER, REAL, STRING

KINDS = {"i": (INTEGER, np.int32), "r": (REAL, np.float64), "s": (STRING, object)}
OWN = 7


def values(rng, kind, count):
    if kind == STRING:
        return [f"{'größe' if n % 3 else 'x'}{n}" for n in rng.integers(0, 1000, count)]
    return rng.integers(-1000, 1000, count).tolist()


class Model:
    """What the columns hold."""

    def __init__(self):
        self.rows = OWN
        self.columns = {name: self.empty(name, OWN) for name in KINDS}

    def empty(self, name, count):
        return ["" if name == "s" else 0] * count

    def resize(self, rows):
        for name, column in self.columns.items():
            self.columns[name] = column[:rows] + self.empty(name, rows - len(column))
        self.rows = rows


def read(rat, index, kind, start, length):
    found = rat.ReadAsArray(index, start, length).tolist()
    return [v.decode() for v in found] if kind == STRING else found


@pytest.mark.parametrize("seed", range(6))
def test_any_order(tmp_path, seed):
    rng = np.random.default_rng(seed)
    path = raster(tmp_path / "a.tif", [("own", INTEGER, 0, list(range(OWN)))], OWN)
    with RatZarr(f"{path}.rat.zarr") as table:
        table.setChunkSize(int(rng.integers(2, 9)))
    model = Model()
    # Little is kept, and little waits: it stays so while this is in use.
    limited = shared_table(f"{path}.rat.zarr", cache_bytes=1500, buffer_bytes=300)
    rats = [attach(path, update=True)]
    assert limited.users
    rats[0].SetRowCount(OWN)
    for name, (kind, _) in KINDS.items():
        rats[0].CreateColumn(name, kind, 0)
    for step in range(400):
        rat = rats[int(rng.integers(len(rats)))]
        name = str(rng.choice([*KINDS]))
        kind, dtype = KINDS[name]
        index = 1 + [*KINDS].index(name)
        column = model.columns[name]
        start = int(rng.integers(model.rows))
        length = int(rng.integers(1, model.rows - start + 1))
        what = rng.choice(["cell", "array", "read", "look", "append", "rows", "flush", "attach"],
                          p=[0.3, 0.15, 0.2, 0.15, 0.08, 0.04, 0.04, 0.04])  # fmt: skip
        if what == "cell":
            [value] = values(rng, kind, 1)
            rat.SetValueAsString(start, index, str(value))
            column[start] = value
        elif what == "array":
            new = values(rng, kind, length)
            rat.WriteArray(np.array(new, None if kind == STRING else dtype), index, start)
            column[start : start + length] = new
        elif what == "read":
            assert read(rat, index, kind, start, length) == column[start : start + length], step
        elif what == "look":
            expected = column[start]
            shown = expected if kind == STRING else str(expected)
            assert rat.GetValueAsString(start, index) == shown, step
        elif what == "append":
            [value] = values(rng, kind, 1)
            rows = rat.GetRowCount()
            assert rows == model.rows
            rat.SetValueAsString(rows, index, str(value))
            model.resize(rows + 1)
            model.columns[name][rows] = value
        elif what == "rows":
            rows = OWN + int(rng.integers(0, 40))
            rat.SetRowCount(rows)
            model.resize(rows)
        elif what == "flush":
            rat.flush()
            with RatZarr(f"{path}.rat.zarr", readOnly=True) as table:
                assert table.rowCount == model.rows
                for each, kept in model.columns.items():
                    assert table.readBlock(each, 0, model.rows).tolist() == kept, (step, each)
        else:
            rats = [*rats[-2:], attach(path, update=True)]
    for rat in rats:
        own = [*range(OWN), *[0] * (model.rows - OWN)]
        assert rat.ReadAsArray(0).tolist() == own
        for index, (name, (kind, _)) in enumerate(KINDS.items(), 1):
            assert read(rat, index, kind, 0, model.rows) == model.columns[name]
        assert rat.GetColOfUsage(gdal.GFU_Red) == -1
        rat.close()
