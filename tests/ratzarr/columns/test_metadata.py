"""What is understood of one column's document serves others, as far as they are the same."""

import json
import secrets
from unittest import mock

import numpy as np
import pytest
from zarr.core.metadata.v3 import ArrayV3Metadata

from ratzarr import RatZarr, TooLargeError
from ratzarr.testing.helpers import make


def test_columns_of_one_kind_are_understood_once(tmp_path):
    """Understood by zarr's class, which takes as long as a request to a server nearby."""
    path = tmp_path / "t.rat.zarr"
    columns = {f"c{number}": ("f8",) for number in range(10)}
    make(path, 5, **columns, w=("f8", 3), i=("i4",)).close()
    # Kinds that this process has not seen: it knows those of the columns that it created.
    number = secrets.randbelow(2**31)
    for file in path.glob("RAT/*/zarr.json"):
        document = json.loads(file.read_text())
        document["fill_value"] = number if document["data_type"] == "int32" else float(number)
        file.write_text(json.dumps(document))
    documents = []
    understand = ArrayV3Metadata.from_dict

    def counted(document, **options):
        documents.append(document)
        return understand(document, **options)

    with mock.patch.object(ArrayV3Metadata, "from_dict", counted), RatZarr(path) as table:
        table.setRowCount(7)
        for name in columns:
            assert table.readBlock(name, 0, 9).tolist() == [number] * 7
        assert table.readBlock("w", 0, 9).shape == (7, 3)
        assert table.readBlock("i", 0, 9).dtype == "i4"
    assert len(documents) == 3


def test_what_tells_two_columns_apart_is_never_the_others(tmp_path):
    path = tmp_path / "t.rat.zarr"
    fills = [0.0, -0.0, 1.0, np.nan, np.uint64(0x7FF8000000000123).view("f8"), np.inf]
    with make(path, 5) as table:
        for number, fill in enumerate(fills):
            table.createColumn(f"c{number}", "f8", fillValue=fill)
        table.createColumn("chunks", "f8", chunkSize=2)
        table.createColumn("big", "f8")
        file = path / "RAT" / "big" / "zarr.json"
        document = json.loads(file.read_text())
        document["codecs"][0]["configuration"]["endian"] = "big"
        file.write_text(json.dumps(document))
    with RatZarr(path) as table:
        for number, fill in enumerate(fills):
            got = table.readBlock(f"c{number}", 0, 5)
            assert got.tobytes() == np.full(5, fill).tobytes()
        assert table.getColumnChunkSize("chunks") == 2
        table.writeBlock("big", [1.0, 2, 3, 4], 0)
        table.writeBlock("c0", [5.0, 6, 7, 8], 0)
        assert table.readBlock("big", 0, 5).tolist() == [1, 2, 3, 4, 0]
        assert table.readBlock("c0", 0, 5).tolist() == [5, 6, 7, 8, 0]


def test_errors_name_the_column_itself(tmp_path, monkeypatch):
    path = tmp_path / "t.rat.zarr"
    make(path, 500, chunk=500, a=("f8",), b=("f8",)).close()
    monkeypatch.setenv("RATZARR_MAX_CHUNK_BYTES", "1000")
    with RatZarr(path) as table:
        for name, other in ("ab", "ba"):
            with pytest.raises(TooLargeError, match=f"'{name}'") as error:
                table.writeBlock(name, [1.0], 0)
            assert f"'{other}'" not in str(error.value)
