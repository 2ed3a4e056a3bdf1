"""Pipes, sockets and devices as rasters and tables: refused at once, by every command."""

import json
import os
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
from osgeo import gdal

from gdalbridge import copy_to_sidecar
from gdalbridge.errors import RasterNotFoundError
from gdalbridge.gdalio.datasets import open_dataset
from gdalbridge.gdalio.special_files import refuse_special_files
from tests.gdalbridge.sample_rasters import INTEGER, make, new_rat

COMMANDS = [
    ("copy", "{}"),
    ("info", "{}"),
    ("head", "{}"),
    ("stats", "{}"),
    ("ls", "{}"),
    ("check", "{}"),
    ("touch", "{}"),
    ("calc", "{}", "--out", "k", "1"),
    ("bake", "{}", "out.tif"),
    ("export", "good.tif.rat.zarr", "{}"),
    ("select", "{}", "true"),
    ("polygonize", "{}", "out.gpkg"),
    ("summarize", "{}", "--by", "Value"),
    ("cp", "{}", "copy.tif"),
    ("mv", "{}", "moved.tif"),
    ("rm", "{}"),
]


CODE = """
import json, sys
from click.testing import CliRunner
from gdalbridge.cli import main

found = []
for args in json.loads(sys.argv[1]):
    print(args, file=sys.stderr, flush=True)
    done = CliRunner(catch_exceptions=False).invoke(main, args)
    found.append([done.exit_code, done.stdout, done.stderr])
print(json.dumps(found))
"""


def outcomes(folder, *commands):
    """Run commands in another process; return their exit codes, output and errors.

    If one hangs, that is an error, whose last line names the command.
    """
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(commands)],
        cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == len(commands)
    for code, _, error in found:
        assert code in (0, 1)
        assert "unforeseen" not in error
    return found


@pytest.fixture
def folder(tmp_path):
    dataset = make(tmp_path / "good.tif")
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat([("Value", INTEGER, 5, np.arange(4))], 4))
    del dataset
    copy_to_sidecar(tmp_path / "good.tif")
    os.mkfifo(tmp_path / "pipe.tif")
    shutil.copytree(tmp_path / "good.tif.rat.zarr", tmp_path / "pipe.tif.rat.zarr")
    (tmp_path / "link.tif").symlink_to("pipe.tif")
    return tmp_path


def test_every_command_refuses_a_pipe(folder):
    there = set(os.listdir(folder))
    commands = [[arg.format("pipe.tif") for arg in args] for args in COMMANDS]
    for (name, *_), (code, output, error) in zip(
        COMMANDS, outcomes(folder, *commands), strict=True
    ):
        # What check finds is its result. Commands on whole files look at them before GDAL does.
        words = (
            "pipe.tif is a symbolic link, or no regular file"
            if name in ("cp", "mv", "rm")
            else "is a pipe (FIFO)"
        )
        assert (name, code) == (name, 1)
        assert words in (output if name == "check" else error), name
    assert set(os.listdir(folder)) == there


def test_and_a_link_to_one_and_standard_input(folder):
    names = ("copy", "head", "stats")
    for code, _, error in outcomes(folder, *((name, "link.tif") for name in names)):
        assert (code, "link.tif is a pipe (FIFO)" in error) == (1, True)
    found = outcomes(folder, *((name, "/vsistdin/") for name in names))
    for name, (code, _, error) in zip(names, found, strict=True):
        # It has no name that a sidecar could have, either.
        words = "no sidecar can lie beside" if name == "copy" else "is a stream"
        assert (code, words in error) == (1, True), error


def wrapped(folder):
    pipe = f"{folder}/pipe.tif"
    return [
        pipe, f"/vsigzip/{pipe}", f"/vsizip/{pipe}/x.tif", f"/vsizip/{{{pipe}}}/x.tif",
        f"/vsisubfile/0_100,{pipe}", f"/vsisparse/{pipe}", f"/vsicached?file={pipe}",
        f"GTIFF_DIR:1:{pipe}", f'NETCDF:"{pipe}":v', f"/vsitar//vsigzip/{pipe}/x.tif", "/dev/zero",
        "/dev/null", "/vsigzip//dev/zero", f"DERIVED_SUBDATASET:LOGAMPLITUDE:{pipe}",
    ]  # fmt: skip


@pytest.mark.parametrize("number", range(14))
def test_whatever_gdal_would_read_it_through(folder, number):
    name = wrapped(folder)[number]
    with pytest.raises(RasterNotFoundError, match=r"a pipe \(FIFO\)|a character device"):
        open_dataset(name)


def test_sockets(tmp_path):
    place = tmp_path / "s.tif"
    with socket.socket(socket.AF_UNIX) as server:
        # The path of a socket can't be long.
        os.chdir(tmp_path)
        server.bind("s.tif")
        with pytest.raises(RasterNotFoundError, match="is a socket"):
            refuse_special_files(str(place))


@pytest.mark.parametrize("end", [".aux.xml", ".ovr", ".msk", ".vat.dbf"])
def test_beside_a_raster(folder, end):
    (folder / f"good.tif{end}").unlink(missing_ok=True)
    os.mkfifo(folder / f"good.tif{end}")
    with pytest.raises(RasterNotFoundError, match="which GDAL would read for"):
        open_dataset(folder / "good.tif")


def test_behind_a_virtual_raster(folder):
    gdal.Translate(str(folder / "v.vrt"), str(folder / "good.tif"), format="VRT").FlushCache()
    text = (folder / "v.vrt").read_text().replace("good.tif", "pipe.tif")
    (folder / "v.vrt").write_text(text)
    [(code, _, error)] = outcomes(folder, ("bake", "v.vrt", "out.tif"))
    assert (code, "is a pipe" in error) == (1, True)


def test_what_is_no_such_file_is_not_refused(tmp_path):
    (tmp_path / "folder.gdb").mkdir()
    for name in (
        "", "<VRTDataset/>", "a\0b", str(tmp_path), str(tmp_path / "folder.gdb"), "/vsimem/x.tif",
        "/vsis3/bucket/x.tif", "none.tif", "PG:dbname=x", str(tmp_path / ("n" * 5000)), "/", ".",
    ):  # fmt: skip
        refuse_special_files(name)


READERS = [("info",), ("head",), ("stats",), ("check",), ("ls",), ("copy", "--append")]


@pytest.mark.parametrize("part", [
    "", "RAT/zarr.json", "RAT/Value/c/0",
    pytest.param("zarr.json", marks=pytest.mark.thorough),
    pytest.param("RAT/Value/zarr.json", marks=pytest.mark.thorough),
])  # fmt: skip
def test_a_table_with_a_pipe_in_it_is_an_error(folder, part):
    place = folder / "good.tif.rat.zarr" / part
    if part:
        place.unlink()
    else:
        shutil.rmtree(place)
    os.mkfifo(place)
    commands = [
        (*reader, "good.tif" if reader[0] == "copy" else "good.tif.rat.zarr") for reader in READERS
    ]
    for (name, *_), (code, output, error) in zip(
        READERS, outcomes(folder, *commands), strict=True
    ):
        # What a command does not read, it does not miss.
        needed = part != "RAT/Value/c/0" or name in ("head", "stats", "check")
        needed = needed and (part != "zarr.json" or name == "check")
        if part == "RAT/Value/zarr.json" and name in ("info", "head", "stats", "ls"):
            # One column that can't be read is named, and blocks nothing else.
            needed = False
            assert "Value" in output + error or name == "ls"
        assert code != 0 or not needed, name
