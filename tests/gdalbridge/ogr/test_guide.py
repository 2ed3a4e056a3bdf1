"""The guide's commands and example, in their order, in a directory with its raster."""

import ast
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from osgeo import gdal

from tests.gdalbridge.ogr.test_programs import debian

pytestmark = pytest.mark.main_env_only

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "qgis-and-ogr2ogr.md"


@debian
def test_the_guide_can_be_followed(nlcd, tmp_path):
    blocks = re.findall(r"```(sh|python)\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    assert [kind for kind, _ in blocks] == ["sh", "python"]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "XDG_DATA_HOME": str(tmp_path / "data-home"),
    }
    said = []
    for kind, text in blocks:
        assert len(text.strip().splitlines()) <= 10
        done = subprocess.run(
            [sys.executable, "-c", text] if kind == "python" else ["sh", "-euc", text],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stderr in ("", "Warning 1: Feature id not preserved\n")
        said.append(done.stdout)
    dataset = gdal.Open(str(nlcd))
    rat = dataset.GetRasterBand(1).GetDefaultRAT()
    pixels = rat.ReadAsArray(4)
    names = [rat.GetValueAsString(row, 5) for row in range(rat.GetRowCount())]
    large = np.flatnonzero(pixels > 1000000).tolist()
    assert 0 < len(large) < 20
    found = [int(row) for row in re.findall(r"OGRFeature\(rat\):(\d+)", said[0])]
    assert found == large
    assert all(f"Land Cover Class (String) = {names[row]}\n" in said[0] for row in large)
    assert ast.literal_eval(said[1].splitlines()[-1]) == large
    with sqlite3.connect(tmp_path / "lc.gpkg") as database:
        rows = database.execute('SELECT row, Histogram, "Land Cover Class" FROM rat ORDER BY 1')
        there = np.flatnonzero(pixels > 0).tolist()
        assert rows.fetchall() == [(row, pixels[row], names[row]) for row in there]
