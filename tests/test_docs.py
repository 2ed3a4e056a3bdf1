"""What the documents show works as it is printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ratzarr import RatZarr
from tests.gdalbridge.pixel_rasters import write

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.main_env_only
def test_the_readme_can_be_followed(tmp_path, moto_s3, monkeypatch):
    """Its commands and examples in their order, in one directory, each on what the last has left."""
    blocks = re.findall(r"```(sh|python)\n(.*?)```", README, re.DOTALL)
    assert [kind for kind, _ in blocks] == ["sh", "python", "python", "sh", "sh", "sh"]
    monkeypatch.setenv("BUCKET", moto_s3.bucket)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    red, nir = np.full((6, 8), 20.0), np.arange(48.0).reshape(6, 8) * 2 + 10
    segments = np.arange(48, dtype="u2").reshape(6, 8) // 16 + 1
    said = []
    for kind, text in blocks:
        if kind == "python":
            assert len(text.strip().splitlines()) <= 14
        command = [sys.executable, "-c", text] if kind == "python" else ["sh", "-euc", text]
        # The first of them goes into the directory that it makes.
        folder = tmp_path / "demo" if said else tmp_path
        if "image.tif" in text:
            write(folder / "seg.tif", segments)
            write(folder / "image.tif", np.array([red, nir], "f4"))
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=300, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), text
        said.append(done.stdout)
    assert "Kept in demo: lc.tif, " in said[0]
    assert "lc.tif.rat.zarr\n" in said[0]
    assert said[0].count("Open Water") == 4
    assert "'area_ha', 'km2']" in said[1]
    assert "written: lc.tif.rat.zarr" in said[2]
    assert f"s3://{moto_s3.bucket}/dir/lc.tif.rat.zarr" in said[5]
    means = [nir[segments == one].mean() for one in (1, 2, 3)]
    ndvi = {one: (mean - 20) / (mean + 20) for one, mean in enumerate(means, start=1)}
    green = pd.read_parquet(tmp_path / "demo" / "green.parquet").set_index("row")
    assert green["ndvi"].to_dict() == {
        one: pytest.approx(value) for one, value in ndvi.items() if value > 0.4
    }
    assert (tmp_path / "demo" / "ndvi.png").stat().st_size > 1000
    with RatZarr(tmp_path / "demo" / "lc.tif.rat.zarr", readOnly=True) as table:
        rows = table.rowCount
        hectares = table.readBlock("hectares", 0, rows).tolist()
        assert hectares == table.readBlock("area_ha", 0, rows).tolist()
        assert (table.readBlock("km2", 0, rows) * 100).tolist() == pytest.approx(hectares)


def test_every_setting_is_documented():
    import gdalbridge.settings
    import ratzarr.settings

    text = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    names = [
        value
        for module in (ratzarr.settings, gdalbridge.settings)
        for name in module.__all__
        if isinstance(value := getattr(module, name), str)
    ]
    assert len(names) == 11
    assert [name for name in names if f"`{name}" not in text] == []


@pytest.mark.main_env_only
def test_the_examples_of_calc_and_stats(tmp_path, monkeypatch, capsys):
    import numpy as np

    from tests.gdalbridge.sample_rasters import make

    text = (ROOT / "docs" / "calc-and-stats.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == 2
    make(tmp_path / "seg.tif")
    with RatZarr(f"{tmp_path}/seg.tif.rat.zarr") as table:
        table.setRowCount(3)
        table.createColumns({"nir": "f8", "red": "f8", "Histogram": "i4"})
        values = {"nir": [1.0, 2.0, 3.0], "red": [1.0, 1.0, 1.0], "Histogram": [10, 20, 30]}
        table.writeBlocks({name: np.array(value) for name, value in values.items()}, 0)
    monkeypatch.chdir(tmp_path)
    for example in examples:
        exec(compile(example, "calc-and-stats.md", "exec"), {})
        said = capsys.readouterr().out
        for expected in re.findall(r"  # (.*)", example):
            assert said == f"{expected}\n"
    assert said


@pytest.mark.main_env_only
@pytest.mark.parametrize("guide", ["duckdb"])
def test_the_guides_can_be_followed(guide, nlcd):
    """Their commands and examples in their order, beside the raster."""
    text = (ROOT / "docs" / "guides" / f"{guide}.md").read_text(encoding="utf-8")
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    said = []
    for kind, block in re.findall(r"```(sh|python)\n(.*?)```", text, re.DOTALL):
        assert len(block.strip().splitlines()) <= 10
        command = [sys.executable, "-c", block] if kind == "python" else ["sh", "-euc", block]
        done = subprocess.run(
            command, cwd=nlcd.parent, capture_output=True, text=True, timeout=300, check=False,
            env=os.environ | {"PATH": path},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), block
        said.append(done.stdout)
    assert said
    assert all("Evergreen Forest" in one for one in said)


@pytest.mark.parametrize(
    ("guide", "examples"), [("xarray.md", 2), ("dask.md", 2), ("plots.md", 1)]
)
def test_the_examples_of_a_guide(tmp_path, guide, examples):
    """Each is a program of its own, of at most ten lines, that prints what its comments say."""
    from tests.gdalbridge.sample_rasters import make

    text = (ROOT / "docs" / "guides" / guide).read_text(encoding="utf-8")
    found = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(found) == examples
    make(tmp_path / "seg.tif")
    with RatZarr(f"{tmp_path}/seg.tif.rat.zarr", newRowCount=5, newChunkSize=2) as table:
        table["class"] = ["water", "forest", "forest", "water", "forest"]
        table["ndvi"] = [0.1, 0.9, 0.6, 0.1, float("nan")]
        table["area"] = [30.0, 12.5, 30.0, 7.5, 1.25]
    for example in found:
        assert len([line for line in example.splitlines() if line.strip()]) <= 10
        done = subprocess.run(
            [sys.executable, "-W", "error::UserWarning", "-c", example], cwd=tmp_path,
            capture_output=True, text=True, check=False, env=dict(os.environ) | {"MPLBACKEND": "agg"},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert done.stdout.splitlines() == re.findall(r"  # (.*)", example)


def _run_examples(document, count, capsys):
    """Run a page's examples, and compare what they print with what their comments say."""
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(examples) == count
    for example in examples:
        assert len([line for line in example.splitlines() if line]) <= 11
        exec(compile(example, document, "exec"), {})
        said = capsys.readouterr().out.splitlines()
        assert said == re.findall(r"  # (.*)", example)


@pytest.mark.main_env_only
def test_the_guide_to_pandas_and_polars(tmp_path, monkeypatch, capsys):
    import numpy as np

    from tests.gdalbridge.sample_rasters import REAL, STRING, make, new_rat

    columns = [
        ("Histogram", REAL, 1, np.array([10, 30, 20, 40.0])),
        ("class", STRING, 0, ["water", "forest", "water", "forest"]),
    ]
    dataset = make(tmp_path / "seg.tif")
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat(columns, 4))
    del dataset
    with RatZarr(f"{tmp_path}/seg.tif.rat.zarr", newRowCount=4) as table:
        # Whole numbers, as in the page.
        table["Histogram"] = [10, 30, 20, 40]
        table["red"] = [1, 5, 2, 5]
        table["nir"] = [3, 15, 6, 15]
    monkeypatch.chdir(tmp_path)
    _run_examples("guides/pandas-and-polars.md", 2, capsys)
    with RatZarr(f"{tmp_path}/seg.tif.rat.zarr", readOnly=True) as table:
        assert table["ndvi"][:].tolist() == [0.5] * 4
        assert table["large_class"][:].tolist() == ["", "forest", "water", "forest"]
        assert table.to_arrow(["depth"])["depth"].to_pylist() == [2, None, 4, None]


@pytest.mark.main_env_only
def test_the_examples_of_exchange(tmp_path, monkeypatch, capsys):
    from tests.gdalbridge.sample_rasters import make

    make(tmp_path / "seg.tif").FlushCache()
    with RatZarr(f"{tmp_path}/seg.tif.rat.zarr", newRowCount=3) as table:
        table["area"] = [1.5, 2.5, 3.5]
    (tmp_path / "owners.csv").write_text("row,owner\n2,Bob\n7,Eve\n0,Ann\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    _run_examples("exchange.md", 2, capsys)


def test_the_examples_of_raster_and_table(tmp_path, monkeypatch):
    import numpy as np
    from osgeo import gdal, ogr

    from gdalbridge import open_table
    from tests.gdalbridge.pixel_rasters import squares, write

    text = (ROOT / "docs" / "raster-and-table.md").read_text(encoding="utf-8")
    text = text[text.index("## paint") : text.index("## Select")]
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    pixels = squares(520, 510)
    write("seg.tif", pixels, transform=(512_000, 1, 0, 6_912_500, 0, -1))
    rows = int(pixels.max()) + 1
    with open_table("seg.tif") as table:
        table["ndvi"] = np.linspace(0, 1, rows)
        table["class"] = ["forest"] * rows
    plots = gdal.GetDriverByName("GPKG").Create("plots.gpkg", 0, 0, 0, gdal.GDT_Unknown)
    layer = plots.CreateLayer("plots", None, ogr.wkbPoint)
    feature = ogr.Feature(layer.GetLayerDefn())
    feature.SetGeometry(ogr.CreateGeometryFromWkt("POINT (512345.5 6912345.5)"))
    layer.CreateFeature(feature)
    del feature, layer, plots
    found = {}
    for example in examples:
        exec(compile(example, "raster-and-table.md", "exec"), found)
    painted = gdal.Open("ndvi.tif").ReadAsArray()
    assert np.array_equal(painted, np.linspace(0, 1, rows)[pixels])
    assert np.array_equal(found["array"], painted[:500, :500])
    assert np.array_equal(found["lazy"], painted)
    assert found["table"].to_pydict() == {
        "row": [pixels[154, 345]], "value": [pixels[154, 345]], "class": ["forest"],
        "ndvi": [painted[154, 345]],
    }  # fmt: skip


@pytest.mark.main_env_only
@pytest.mark.parametrize("kind", ["python", "sh"])
def test_the_guide_from_a_segmentation_to_a_map(tmp_path, kind):
    """The images in the guide are this test's."""
    import numpy as np
    from osgeo import gdal

    from gdalbridge import open_table
    from tests.gdalbridge.pixel_rasters import write

    lines, columns = np.mgrid[:300, :400]
    # Segments with wavy edges, a lake, and woods in the hills.
    segments = (lines + 4 * np.sin(columns / 9)).astype(int) // 12 * 60
    segments += (columns + 4 * np.sin(lines / 7)).astype(int) // 12 + 61
    hills = np.sin(columns / 60) + np.cos(lines / 45)
    noise = np.random.default_rng(4).normal(0, 8, hills.shape)
    nir = np.clip(120 + 60 * hills + noise, 1, 255)
    red = np.clip(100 - 25 * hills + noise, 1, 255)
    write(tmp_path / "seg.tif", segments.astype("u4"))
    write(tmp_path / "image.tif", np.stack([red, nir]).astype("u1"))
    text = (ROOT / "docs" / "guides" / "from-segmentation-to-map.md").read_text(encoding="utf-8")
    (code,) = re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    command = [sys.executable, "-c", code] if kind == "python" else ["sh", "-euc", code]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "forest" in done.stdout
    # numpy comes to the same map.
    count = np.bincount(segments.ravel())
    means = [
        np.bincount(segments.ravel(), band.astype("u1").ravel()) / np.maximum(count, 1)
        for band in (red, nir)
    ]
    with np.errstate(invalid="ignore"):
        ndvi = (means[1] - means[0]) / (means[1] + means[0])
    there = count > 0
    with open_table(tmp_path / "seg.tif") as table:
        assert np.allclose(table["ndvi"][:][there], ndvi[there])
        names = table["class"][:]
    wanted = np.select([ndvi < 0, ndvi < 0.4], ["water", "grass"], "forest")
    assert names[there].tolist() == wanted[there].tolist()
    # Rows without pixels belong to no class.
    assert set(names[~there]) == {""}
    painted = gdal.Open(str(tmp_path / "class.tif"))
    codes = painted.ReadAsArray()
    rat = painted.GetRasterBand(1).GetDefaultRAT()
    labels = {
        rat.GetValueAsInt(row, 0): rat.GetValueAsString(row, 1) for row in range(rat.GetRowCount())
    }
    assert {labels[int(one)] for one in np.unique(codes)} == set(wanted[there])
    assert (tmp_path / "class.png").stat().st_size > 5_000


def test_the_readmes_targets_are_there():
    targets = set(re.findall(r"^make (\w+)", README, re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(f"\n{target}:" in makefile for target in targets)


@pytest.mark.parametrize(
    "document",
    sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md")),
    ids=lambda p: p.name,
)
def test_links_lead_somewhere(document):
    text = document.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_the_tree_is_as_the_design_says():
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"\b([a-z0-9_]+)\b", design.split("```")[1]))
    for package in ("ratzarr", "gdalbridge"):
        there = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        there |= {path.stem for path in (ROOT / package).glob("*.py")}
        assert {name for name in there if not name.startswith("_")} <= listed
        assert len(list((ROOT / package).glob("*.py"))) <= 10


def test_the_names_of_gdalbridge():
    code = "import gdalbridge; print(*sorted(gdalbridge.__all__))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [
        "AttachedRAT", "BakeReport", "BridgeError", "BuildReport", "CalcReport", "CancelledError",
        "CheckReport", "ClassSummary", "ColumnReport", "ColumnStats", "ConversionError",
        "CopyReport", "ExportReport", "JoinReport", "LossWarning", "PaintReport", "PolygonReport",
        "Sidecar", "StaleWarning", "Table", "TableInfo", "TouchReport", "TravelReport",
        "ZonalReport", "attach", "bake", "build", "calc", "check", "column_stats", "copy_raster",
        "copy_to_raster", "copy_to_sidecar", "disable", "enable", "export_table", "find_sidecars",
        "list_tables", "move_raster", "open_table", "paint", "polygonize", "remove_raster",
        "sample", "select", "sidecar_path", "summarize", "touch", "zonal",
    ]  # fmt: skip


def test_without_gdal_the_error_names_the_ways_to_get_it():
    code = """
import sys
sys.modules["osgeo"] = None
import gdalbridge
gdalbridge.sidecar_path("x.tif")
try:
    gdalbridge.copy_to_sidecar("x.tif")
except ImportError as error:
    assert isinstance(error, gdalbridge.BridgeError)
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for way in ("conda-forge", "libgdal", "gdal-wheel"):
        assert way in done.stdout


@pytest.mark.main_env_only
def test_the_examples_of_select_polygonize_and_summarize(tmp_path, monkeypatch, capsys):
    import numpy as np

    from gdalbridge import build, open_table
    from tests.gdalbridge.pixel_rasters import write

    path = write(tmp_path / "seg.tif", np.array([[1, 1, 2, 3], [3, 3, 2, 3]], "u1"))
    with open_table(path) as table:
        table["class"] = ["", "water", "forest", "forest"]
        table["ndvi"] = [0.9, 0.1, 0.7, 0.8]
    build(path, recount=True)
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "raster-and-table.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)
    for name in ("Select", "Polygons", "Summaries"):
        [section] = [one for one in sections if one.startswith(f"{name}:")]
        [example] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
        exec(compile(example, name, "exec"), {})
        said = capsys.readouterr().out.splitlines()
        assert said == re.findall(r"  # (.*)", example)
