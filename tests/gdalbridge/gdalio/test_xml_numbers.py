"""Numbers in XML that GDAL reads otherwise than they are written, without a word.

Oracles: GDAL's own value of each cell, and Python's exact arithmetic on its text.
"""

import os
import random
import warnings
from decimal import Decimal, InvalidOperation

import numpy as np
import pytest
from click.testing import CliRunner
from osgeo import gdal

import gdalbridge
from gdalbridge import attach, bake, column_stats, copy_to_sidecar
from gdalbridge.cli import main
from gdalbridge.errors import GdalLossError, LossWarning
from ratzarr import RatZarr
from tests.gdalbridge.gdalio.test_own_table import aux_xml, raster
from tests.gdalbridge.sample_rasters import INTEGER, REAL, STRING, make, new_rat

CELLS = [
    "0", "7", "-7", "+7", "007", " 12 ", "2147483647", "-2147483648", "000000002147483647",
    "2147483648", "-2147483649", "4294967296", "4294967301", "99999999999999999999", "12a", "a",
    "1,5", "1.0", "1.5", "-1.", "1e3", "1e+3", "0x10", "", " ", "1 2", "--1", "9007199254740992",
    "9007199254740993", "9007199254740994", "123456789012345", "0.1", ".5", "-.5e-3", "1e308",
    "1e400", "-1e400", "1e-320", "nan", "-nan", "inf", "-inf", "NaN", "Infinity", "-NaN", "1.#QNAN", "-1.#IND",
    "12345678901234567890", "1.797693134862315e+308", "1_000", "５", "1d5", "&#49;2",
    "<![CDATA[12]]>", "12<!-- 3 -->",
]  # fmt: skip


def open_by_gdal(path):
    gdal.PushErrorHandler("CPLQuietErrorHandler")
    try:
        return gdal.Open(os.fspath(path))
    finally:
        gdal.PopErrorHandler()


def number_of(cell):
    """Return the number that is written, or None."""
    cell = cell.replace("&#49;", "1").replace("<![CDATA[12]]>", "12").replace("<!-- 3 -->", "")
    cell = cell.strip()
    if not cell.isascii() or "_" in cell:
        return None
    if "1.#" in cell:
        return Decimal("nan")
    try:
        return Decimal(cell)
    except InvalidOperation:
        return None


def is_read_exactly(cell, value, kind):
    number = number_of(cell)
    if number is None:
        return False
    if kind == REAL and not number.is_finite():
        return bool(np.isnan(value)) if number.is_nan() else value == float(number)
    if kind == REAL and (number != number.to_integral_value() or not cell.strip("+- ").isdigit()):
        # Decimals are rounded by every reader.
        return np.isfinite(value) and value == float(number)
    return number.is_finite() and np.isfinite(value) and Decimal(value) == number


@pytest.mark.parametrize("kind", [INTEGER, REAL])
def test_an_error_where_gdals_value_is_another(tmp_path, kind):
    path, dataset = tmp_path / "seg.tif", None
    make(path).FlushCache()
    fields, outcomes = [("t", STRING, 0), ("n", kind, 0)], set()
    for cell in CELLS:
        del dataset
        aux_xml(path, fields, [(0, ["a", 1]), (1, ["b", cell]), (2, ["c", 3])])
        dataset = open_by_gdal(path)
        rat = dataset.GetRasterBand(1).GetDefaultRAT()
        value = rat.GetValueAsInt(1, 1) if kind == INTEGER else rat.GetValueAsDouble(1, 1)
        del rat
        exact = is_read_exactly(cell, value, kind)
        outcomes.add(exact)
        try:
            with attach(path) as shown:
                found = shown.ReadAsArray(1)[1]
        except GdalLossError as error:
            assert not exact, cell
            assert "column 'n', row 1: " in str(error)
            assert "lossy=True" in str(error)
        else:
            assert exact, cell
            assert found == value or np.isnan(value)
    assert outcomes == {True, False}


def wrapped(tmp_path, name="seg.tif"):
    return raster(tmp_path, [("n", INTEGER, 0)], [(0, [5]), (1, [2**32 + 9])], name)


def test_every_door(tmp_path):
    path = wrapped(tmp_path)
    dataset = open_by_gdal(path)
    doors = [
        lambda: copy_to_sidecar(path),
        lambda: attach(path),
        lambda: attach(dataset),
        lambda: column_stats(path),
        lambda: bake(path, tmp_path / "out.tif"),
    ]
    for door in doors * 2:
        with pytest.raises(GdalLossError, match="column 'n', row 1: '4294967305' is no 32-bit"):
            door()
    for command in (["head", path], ["stats", path], ["copy", path], ["info", path]):
        done = CliRunner().invoke(main, [str(one) for one in command])
        assert done.exit_code == 1
        assert "4294967305" in done.stderr
        assert "--lossy" in done.stderr
    with pytest.warns(LossWarning, match="4294967305"), attach(path, lossy=True) as rat:
        assert rat.ReadAsArray(0)[0] == 5
    done = CliRunner().invoke(main, ["head", "--lossy", str(path)])
    assert done.exit_code == 0
    # Mended, it is another file.
    aux_xml(path, [("n", INTEGER, 0)], [(0, [5]), (1, [9])])
    assert copy_to_sidecar(path).rows == 2


def test_export_into_such_a_table(tmp_path):
    path = wrapped(tmp_path)
    with RatZarr(f"{path}.rat.zarr") as table:
        table.setRowCount(2)
        table.createColumn("new", np.int32)
    before = path.with_name("seg.tif.aux.xml").read_bytes()
    with pytest.raises(GdalLossError, match="4294967305"):
        gdalbridge.copy_to_raster(f"{path}.rat.zarr", path)
    assert path.with_name("seg.tif.aux.xml").read_bytes() == before


def test_a_row_with_too_few_cells(tmp_path):
    fields = [("n", INTEGER, 0), ("t", STRING, 0), ("r", REAL, 0)]
    path = raster(tmp_path, fields, [(0, [1, "a", 2]), (1, [1, "a"])])
    with pytest.raises(GdalLossError, match="column 'r', row 1: an empty text"):
        attach(path)
    # An empty text is GDAL's own.
    path = raster(tmp_path, fields[:2], [(0, [1, "a"]), (1, [1])], "two.tif")
    attach(path).close()


def test_a_column_of_colours_is_integer(tmp_path):
    """Whatever its type: GDAL cuts decimals there."""
    path = raster(tmp_path, [("red", REAL, 6)], [(0, ["17"]), (1, ["0.5"])])
    with pytest.raises(GdalLossError, match=r"column 'red', row 1: '0\.5' is no 32-bit Integer"):
        attach(path)


def test_only_the_bands_own_table(tmp_path):
    path = tmp_path / "seg.tif"
    make(path, bands=2).FlushCache()
    good, bad = ("<F>1</F>", "<F>x</F>")
    head = '<FieldDefn index="0"><Name>n</Name><Type>0</Type><Usage>0</Usage></FieldDefn>'
    bands = "".join(
        f'<PAMRasterBand band="{band}"><Description>b</Description><GDALRasterAttributeTable '
        f'tableType="thematic">{head}<Row index="0">{cell}</Row></GDALRasterAttributeTable>'
        "</PAMRasterBand>"
        for band, cell in ((1, good), (2, bad))
    )
    path.with_name("seg.tif.aux.xml").write_text(f"<PAMDataset>{bands}</PAMDataset>")
    attach(path).close()
    with pytest.raises(GdalLossError, match="'x' is no 32-bit Integer"):
        attach(path, band=2)


def test_a_vrt_has_its_table_in_itself(tmp_path):
    source = tmp_path / "seg.tif"
    dataset = make(source)
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat([("n", INTEGER, 0, [1, 2])], 2))
    del dataset
    path = tmp_path / "seg.vrt"
    gdal.GetDriverByName("VRT").CreateCopy(os.fspath(path), gdal.Open(os.fspath(source)))
    text = path.read_text()
    assert "<F>2</F>" in text
    attach(path).close()
    path.write_text(text.replace("<F>2</F>", "<F>2147483648</F>"))
    with pytest.raises(GdalLossError, match="'2147483648' is no 32-bit Integer"):
        attach(path)


def test_a_table_given_to_an_open_dataset_is_not_the_files(tmp_path):
    path = raster(tmp_path, [("n", INTEGER, 0)], [(0, ["x"])])
    dataset = open_by_gdal(path)
    dataset.GetRasterBand(1).SetDefaultRAT(new_rat([("other", INTEGER, 0, [1, 2])], 2))
    with attach(dataset) as rat:
        assert rat.ReadAsArray(0).tolist() == [1, 2]
    path.with_name("seg.tif.aux.xml").unlink()


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.thorough)])
def test_many_rows_in_blocks(tmp_path, seed):
    """Rows that GDAL writes are no error; one altered cell among them is found in its row."""
    pick, rows = random.Random(seed), 70_000
    values = np.random.default_rng(seed)
    path = tmp_path / "seg.tif"
    source = gdal.GetDriverByName("MEM").Create("", 4, 3)
    reals = values.standard_normal(rows) * 10.0 ** values.integers(-300, 300, rows)
    reals[::1000] = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e22, 2.0**53 + 2] * 10
    integers = values.integers(-(2**31), 2**31, rows).astype(np.int32)
    text = [f"{'<&>' * (row % 5)} größe {row}" for row in range(rows)]
    columns = [("n", INTEGER, 0, integers), ("t", STRING, 0, text), ("r", REAL, 0, reals)]
    source.GetRasterBand(1).SetDefaultRAT(new_rat(columns, rows))
    options = ["PROFILE=GeoTIFF"]
    gdal.GetDriverByName("GTiff").CreateCopy(os.fspath(path), source, options=options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attach(path).close()
    aux = path.with_name("seg.tif.aux.xml")
    content = aux.read_bytes()
    assert len(content) > 8 * 2**20
    row = pick.randrange(rows)
    start = content.index(b'<Row index="%d">' % row)
    cell = content.index(b"<F>", start) + 3
    aux.write_bytes(content[:cell] + b"30000000000" + content[content.index(b"<", cell) :])
    with pytest.raises(GdalLossError, match=f"column 'n', row {row}: '30000000000' is no"):
        attach(path)


@pytest.mark.parametrize(
    ("indices", "words"),
    [
        (["0", "1", "1", "2"], r"row 2 of the file has the index 1"),
        ([None, None, None], r"row 0 of the file has no index"),
        (["0", "1", "3"], r"index|out of range"),
    ],
)
@pytest.mark.parametrize("text", ["n{}", "7"])
def test_rows_that_overwrite_each_other(tmp_path, indices, words, text):
    path = tmp_path / "a.tif"
    make(path).FlushCache()
    rows = "".join(
        f"<Row{'' if index is None else f' index="{index}"'}><F>{number}</F>"
        f"<F>{text.format(number)}</F></Row>"
        for number, index in enumerate(indices)
    )
    (tmp_path / "a.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><GDALRasterAttributeTable>'
        '<FieldDefn index="0"><Name>v</Name><Type>0</Type><Usage>0</Usage></FieldDefn>'
        '<FieldDefn index="1"><Name>s</Name><Type>2</Type><Usage>0</Usage></FieldDefn>'
        f"{rows}</GDALRasterAttributeTable></PAMRasterBand></PAMDataset>"
    )
    with pytest.raises(GdalLossError, match=words):
        copy_to_sidecar(path)
    assert not (tmp_path / "a.tif.rat.zarr").exists()
    with pytest.warns(LossWarning, match=words):
        copy_to_sidecar(path, lossy=True)
