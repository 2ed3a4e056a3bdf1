"""``gdalbridge build`` and ``zonal``, as typed."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from gdalbridge import open_table, zonal
from gdalbridge.cli import main
from gdalbridge.errors import CancelledError
from tests.gdalbridge.pixel_rasters import squares, write
from tests.processes import gdalbridge, running, wait_until

pytestmark = pytest.mark.main_env_only


def run(*words, code=0):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def segments(tmp_path):
    return write(tmp_path / "seg.tif", squares(40, 50, first=1))


def test_from_pixels_to_statistics(tmp_path, segments):
    said = run("stats", segments, code=1)
    assert said.rstrip().endswith(f"gdalbridge build {segments}")
    assert "Histogram, x, y, area" in run("build", segments, "--centroid", "--area")
    image = write(tmp_path / "image.tif", np.arange(4000, dtype="f4").reshape(2, 40, 50))
    report = json.loads(
        run(
            "zonal",
            segments,
            image,
            "--band",
            "1:red",
            "--band",
            "2",
            "--stat",
            "mean,p50",
            "--stat",
            "count",
            "--json",
        )
    )
    assert report["columns"] == [
        "red_mean", "red_p50", "red_count", "band2_mean", "band2_p50", "band2_count",
    ]  # fmt: skip
    with open_table(segments) as table:
        assert table.columns[:4] == ["Histogram", "x", "y", "area"]
        assert np.array_equal(table["red_count"][:], table["Histogram"][:])
        assert table["red_mean"][1] == np.arange(2000).reshape(40, 50)[:9, :9].mean()
    assert "already" in run("build", segments, code=1)
    assert "passes" in run("zonal", segments, image, "--memory", "200", "--overwrite")


def test_info_names_the_images(tmp_path, segments):
    for name in ("dem.tif", "ndvi.tif"):
        image = write(tmp_path / name, np.arange(2000, dtype="f4").reshape(40, 50))
        run("zonal", segments, image)
    said = run("info", segments)
    assert "zonal of dem.tif by seg.tif, band 1" in said
    assert "): dem_count, dem_mean\n" in said
    assert "zonal of ndvi.tif by seg.tif" in said


@pytest.mark.parametrize(("words", "said"), [
    (["--band", "red"], "NUMBER:NAME"), (["--band", "1", "--band", "1:x"], "twice"),
    (["--memory", "much"], "500M"), (["--stat", "average"], "'average'"),
    (["--resampling", "best"], "'best'"),
])  # fmt: skip
def test_wrong_options_are_named(tmp_path, segments, words, said):
    image = write(tmp_path / "image.tif", np.zeros((40, 50), "u1"))
    result = CliRunner().invoke(main, ["zonal", segments, image, *words])
    assert result.exit_code != 0
    assert said in result.output


def test_nothing_but_results_is_printed(tmp_path):
    path = write(tmp_path / "seg.tif", np.ones((2, 3), "u1"), crs=32755)
    image = write(tmp_path / "image.tif", np.ones((2, 3), "f4"), crs=28355)
    for words in (["build", path, "--area"], ["zonal", path, image]):
        done = subprocess.run(
            [sys.executable, "-m", "gdalbridge", *words],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Warning" not in done.stderr
    assert done.returncode == 1
    assert done.stderr == (
        f"gdalbridge: {image} has another coordinate reference system. Choose how to resample it to "
        "the segments' grid with --resampling (near, bilinear, average or another method).\n"
    )


def test_advice_names_the_options(tmp_path):
    path = write(tmp_path / "negative.tif", np.array([[-1, 2]], "i2"))
    assert "Use --sparse for a table" in run("build", path, code=1)
    path = write(tmp_path / "high.tif", np.array([[1, 2**32 - 1]], "u4"))
    said = run("build", path, code=1)
    assert "Use --sparse for a table of 2 rows" in said
    assert "or --no-sparse for one of 4294967296 rows" in said
    assert "2 rows of 2 values" in run("build", path, "--sparse")


def test_weights(tmp_path, segments):
    image = write(tmp_path / "image.tif", np.arange(2000, dtype="f4").reshape(40, 50))
    observed = write(tmp_path / "n.tif", np.arange(4000, dtype="u2").reshape(2, 40, 50) % 7)
    said = run("zonal", segments, image, "--stat", "weight", code=1)
    assert "with --weights" in said
    run("zonal", segments, image, "--stat", "weight", "--weights", observed, "--weights-band", 2)
    with open_table(segments) as table:
        assert table["image_weight"][:].sum() == (np.arange(2000, 4000) % 7).sum()


def test_ctrl_c_names_the_option(tmp_path):
    path = write(tmp_path / "seg.tif", squares(1024, 2048, first=1), BLOCKYSIZE=512)
    image = write(tmp_path / "image.tif", np.ones((1024, 2048), "u1"), BLOCKYSIZE=512)
    # In thousands of passes, which nobody waits for.
    words = ["zonal", path, image, "--memory", "100", "--checkpoint", "0.001"]
    with running(gdalbridge(*words)) as process:
        # The second: the first may be in place before the command knows.
        wait_until(lambda: any(
            json.loads(one.read_text())["serial"] > 1
            for one in tmp_path.glob("*.checkpoint/checkpoint.json")
        ))  # fmt: skip
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130
    [place] = tmp_path.glob("*.checkpoint")
    assert said == (
        f"gdalbridge: interrupted\n  The finished part stays in {place}. Use --resume to continue.\n"
    )
    assert open_table(path).columns == []


def test_an_interrupted_run_is_resumed(tmp_path):
    path = write(tmp_path / "seg.tif", squares(1024, 2048, first=1), BLOCKYSIZE=512)
    image = write(tmp_path / "image.tif", np.ones((1024, 2048), "u1"), BLOCKYSIZE=512)
    with pytest.raises(CancelledError) as caught:
        zonal(path, image, stats=["sum"], checkpoint=1e-9, progress=lambda done, *_: done == 0)
    assert "resume=True" in caught.value.__notes__[0]
    said = run("zonal", path, image, "--stat", "sum", "--resume", "--nodata", "3", code=1)
    assert "nodata is '3', and was 'None'. Without --resume, it starts again." in said
    said = run("zonal", path, image, "--stat", "sum", "--resume", "--checkpoint", "30")
    assert "1 of 2 windows were read before" in said
    with open_table(path) as table:
        assert (
            table["image_sum"][:].tolist()
            == np.bincount(squares(1024, 2048, first=1).ravel()).tolist()
        )
