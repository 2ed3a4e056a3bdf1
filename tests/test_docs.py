"""What the documents show works as it is printed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ratzarr import RatZarr

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.main_env_only
def test_the_readme_can_be_followed(tmp_path, moto_s3, monkeypatch):
    """Its commands and examples in their order, in one directory, each on what the last has left."""
    blocks = re.findall(r"```(sh|python)\n(.*?)```", README, re.DOTALL)
    assert [kind for kind, _ in blocks] == ["sh", "python", "python", "sh", "sh"]
    monkeypatch.setenv("BUCKET", moto_s3.bucket)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")
    said = []
    for kind, text in blocks:
        if kind == "python":
            assert len(text.strip().splitlines()) <= 14
        command = [sys.executable, "-c", text] if kind == "python" else ["sh", "-euc", text]
        # The first of them goes into the directory that it makes.
        folder = tmp_path / "demo" if said else tmp_path
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
    assert f"s3://{moto_s3.bucket}/dir/lc.tif.rat.zarr" in said[4]
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
    assert len(names) == 10
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
        "AttachedRAT", "BakeReport", "BridgeError", "CalcReport", "CancelledError", "CheckReport",
        "ColumnReport", "ColumnStats", "ConversionError", "CopyReport", "LossWarning", "Sidecar",
        "StaleWarning", "TableInfo", "TouchReport", "TravelReport", "attach", "bake", "calc", "check",
        "column_stats", "copy_raster", "copy_to_raster", "copy_to_sidecar", "disable", "enable",
        "find_sidecars", "list_tables", "move_raster", "remove_raster", "sidecar_path", "touch",
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
