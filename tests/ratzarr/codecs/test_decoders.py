"""Text as its bytes, and chunks that are only checked: against zarr-python and plain lists."""

import json

import numpy as np
import pytest
import zarr

from ratzarr import (
    ChangedError,
    ColumnIncompleteError,
    ColumnNotFoundError,
    DamagedError,
    RatZarr,
    RowRangeError,
)

CHUNK = 10
TEXTS = [f"größe {i}" * (i % 3) for i in range(23)]


@pytest.fixture
def place(tmp_path):
    place = tmp_path / "t.rat.zarr"
    with RatZarr(place) as table:
        table.setChunkSize(CHUNK)
        table.setRowCount(23)
        table.createColumn("s", str)
        table.writeBlock("s", TEXTS, 0)
        table.createColumn("n", np.int32)
        table.writeBlock("n", np.arange(23, dtype="i4"), 0)
    return place


def strings(pieces):
    return [raw.decode() for piece in pieces for raw in piece.tolist()]


def chunk(place, name, number):
    return place / "RAT" / name / "c" / str(number)


def test_rows_from_anywhere_to_anywhere(place):
    root = zarr.open_group(str(place), mode="r")
    assert root["RAT/s"][:].tolist() == TEXTS
    with RatZarr(place, readOnly=True) as table:
        for start in range(24):
            for length in (0, 1, 9, 10, 11, 30):
                found = strings(table.readText("s", start, length))
                assert found == TEXTS[start : start + length]


def test_rows_never_written_are_the_fill_value(place):
    with RatZarr(place) as table:
        table.createColumn("new", str)
        table.createColumn("filled", str, fillValue="none")
        table.writeBlock("new", ["x"], 12)
        assert strings(table.readText("new", 9, 5)) == ["", "", "", "x", ""]
        assert strings(table.readText("filled", 0, 5)) == ["none"] * 5
        table.writeBlock("filled", ["y"], 1)
        assert strings(table.readText("filled", 0, 3)) == ["none", "y", "none"]


def test_what_is_better_read_as_strings(place):
    with RatZarr(place) as table:
        assert table.readText("n", 0, 3) is None
        table.createColumn("two", str, width=2)
        assert table.readText("two", 0, 3) is None
        for text in ("zero \x00 byte", "x" * 256):
            table.writeBlock("s", [text], 11)
            assert table.readText("s", 0, 23) is None
            assert strings(table.readText("s", 0, 10)) == TEXTS[:10]
            assert table.readBlock("s", 11, 1).tolist() == [text]


def test_a_column_that_has_not_grown_with_its_table_is_read_as_strings(place):
    with RatZarr(place) as table:
        table.setRowCount(30)
    path = place / "RAT" / "s" / "zarr.json"
    document = json.loads(path.read_text())
    document["shape"] = [23]
    document["attributes"] = {
        key: value for key, value in document["attributes"].items() if "SUM" not in key.upper()
    }
    path.write_text(json.dumps(document))
    with RatZarr(place, readOnly=True) as table:
        assert table.readText("s", 0, 30) is None
        assert table.readBlock("s", 0, 30).tolist() == TEXTS + [""] * 7


@pytest.mark.parametrize("method", ["readText", "checkBlock"])
def test_refusals(place, method):
    with RatZarr(place) as table:
        ask = getattr(table, method)
        table.createColumn("half", str, complete=False)
        with pytest.raises(ColumnIncompleteError):
            ask("half", 0, 3)
        with pytest.raises(ColumnNotFoundError):
            ask("no", 0, 3)
        for start, length in ((-1, 3), (24, 1), (0, -1)):
            with pytest.raises(RowRangeError):
                ask("s", start, length)


@pytest.mark.parametrize(("name", "method"), [("s", "readText"), ("s", "checkBlock"),
                                              ("n", "checkBlock")])  # fmt: skip
def test_damage_is_found(place, name, method):
    path = chunk(place, name, 1)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with RatZarr(place, readOnly=True) as table:
        ask = getattr(table, method)
        with pytest.raises(DamagedError, match=rf"c/1 \(rows 10 to 19 of column '{name}'\)"):
            ask(name, 0, 23)
        ask(name, 0, 10)


@pytest.mark.parametrize("method", ["readText", "checkBlock"])
def test_a_missing_chunk_of_a_finished_column_is_found(place, method):
    with RatZarr(place) as table:
        table.createColumn("bulk", str, complete=False)
        table.writeBlock("bulk", TEXTS, 0)
        table.setComplete("bulk")
    chunk(place, "bulk", 1).unlink()
    with RatZarr(place, readOnly=True) as table, pytest.raises(DamagedError, match="is missing"):
        getattr(table, method)("bulk", 0, 23)


def test_a_chunk_without_a_checksum_is_decoded(place, tmp_path):
    group = zarr.open_group(str(place), mode="a")
    array = group.create_array(
        "RAT/plain", shape=(23,), chunks=(CHUNK,), dtype="i4", compressors=None
    )
    array[:] = np.arange(23)
    with RatZarr(place, readOnly=True) as table:
        table.checkBlock("plain", 0, 23)
        chunk(place, "plain", 2).write_bytes(b"short")
        with pytest.raises(DamagedError, match="expected 40 bytes"):
            table.checkBlock("plain", 0, 23)


def test_rows_that_another_process_cuts_off(tmp_path):
    """They do not become empty rows for the reads that follow."""
    for method in ("readText", "readUtf8", "checkBlock"):
        url = tmp_path / f"{method}.rat.zarr"
        with RatZarr(url, newRowCount=6, newChunkSize=4) as table:
            table["s"] = list("abcdef")
            with RatZarr(url) as other:
                other.setRowCount(3)
            if method == "checkBlock":
                with pytest.raises(ChangedError, match="cut to 3 rows"):
                    table.checkBlock("s", 0, 6)
            else:
                assert getattr(table, method)("s", 0, 6) is None
            assert table.readBlock("s", 0, 6).tolist() == ["a", "b", "c"]
