"""The files on disk, read as raw JSON and by zarr itself."""

import json

import numpy as np
import pytest
import zarr

from ratzarr import RatZarr
from ratzarr.testing.columns import values_of
from ratzarr.testing.helpers import BYTES, STRING, document, make, raw

DATA_TYPES = {
    "int8": "int8",
    "uint64": "uint64",
    "float16": "float16",
    "float64": "float64",
    "bool": "bool",
    STRING: "string",
    "S7": "null_terminated_bytes",
    BYTES: "variable_length_bytes",
    "datetime64[us]": "numpy.datetime64",
}


class Layout:
    """The statements of the format specification."""

    def test_the_hierarchy(self, place):
        url = place.new()
        with make(place.at(url), 9, chunk=4, a=("int32",), w=("float32", 3)) as table:
            table.writeBlock("a", np.arange(9), 0)
            table.writeBlock("w", np.ones((4, 3), "f4"), 4)
        assert set(place.objects(url)) == {
            "zarr.json", "RAT/zarr.json", "RAT/a/zarr.json", "RAT/w/zarr.json",
            "RAT/a/c/0", "RAT/a/c/1", "RAT/a/c/2", "RAT/w/c/1/0",
        }  # fmt: skip
        for key in ("", "RAT"):
            group = document(place, url, key)
            assert group["zarr_format"] == 3
            assert group["node_type"] == "group"

    @pytest.mark.parametrize("dtype", DATA_TYPES, ids=str)
    @pytest.mark.parametrize("width", [1, 3])
    def test_an_array(self, place, dtype, width):
        url = place.new()
        with make(place.at(url), 9, chunk=4, a=(dtype, width)) as table:
            table.writeBlock("a", values_of(dtype, 9, width), 0)
        array = document(place, url, "RAT/a")
        assert array["zarr_format"] == 3
        assert array["node_type"] == "array"
        assert array["shape"] == ([9] if width == 1 else [9, 3])
        chunk = [4] if width == 1 else [4, 3]
        assert array["chunk_grid"] == {"name": "regular", "configuration": {"chunk_shape": chunk}}
        assert array["chunk_key_encoding"]["name"] == "default"
        assert array["chunk_key_encoding"].get("configuration", {}).get("separator", "/") == "/"
        assert array["dimension_names"] == (["row"] if width == 1 else ["row", "value"])
        codecs = [codec["name"] for codec in array["codecs"]]
        assert codecs[-1] == "crc32c"
        assert not any("shard" in name for name in codecs)
        core = {"bytes", "vlen-utf8", "vlen-bytes", "blosc", "zstd", "gzip", "crc32c"}
        assert set(codecs) <= core
        kind = array["data_type"]
        assert (kind if isinstance(kind, str) else kind["name"]) == DATA_TYPES[dtype]
        assert array["attributes"]["MODIFICATIONLOG"]
        assert "NAME" not in array["attributes"]
        assert "COMPLETE" not in array["attributes"]

    def test_the_attributes_of_the_table(self, place):
        url = place.new()
        make(place.at(url), 9, chunk=4, b=("int8",), a=("int8",)).close()
        attributes = document(place, url, "RAT")["attributes"]
        assert attributes["ROWCOUNT"] == 9
        assert attributes["CHUNKSIZE"] == 4
        assert attributes["COLUMN_ORDER"] == ["b", "a"]
        assert attributes["FORMAT_VERSION"] == 1
        conventions = attributes["zarr_conventions"]
        assert isinstance(conventions, list)
        assert len(conventions) == 1
        assert isinstance(conventions[0], dict)
        assert conventions[0]
        assert set(attributes) <= {
            "ROWCOUNT", "CHUNKSIZE", "COLUMN_ORDER", "FORMAT_VERSION", "zarr_conventions",
        }  # fmt: skip

    def test_no_consolidated_metadata(self, place):
        url = place.new()
        make(place.at(url), 9, a=("int8",)).close()
        for key, content in place.objects(url).items():
            assert b"consolidated_metadata" not in content or (
                json.loads(content)["consolidated_metadata"] is None
            ), key

    def test_consolidated_metadata_is_ignored(self, place):
        """The consolidated metadata claims one column of nine rows; the table has two of twelve."""
        url = place.new()
        with make(place.at(url), 9, a=("int32",)) as table:
            table.writeBlock("a", np.arange(9), 0)
        stale = place.create(stale_url := place.new())
        stale.create_group("RAT", attributes={"ROWCOUNT": 9}).create_array(
            "a", shape=9, dtype="i4"
        )
        with pytest.warns(match="[Cc]onsolidated"):
            zarr.consolidate_metadata(place.store(stale_url, read_only=False))
        lie = document(place, stale_url)["consolidated_metadata"]
        for key in ("", "RAT"):
            contents = document(place, url, key)
            contents["consolidated_metadata"] = lie
            place.put(url, f"{key}/zarr.json".lstrip("/"), json.dumps(contents).encode())
        with RatZarr(place.at(url)) as table:
            table.setRowCount(12)
            table.createColumn("b", "int8")
            table.writeBlock("a", np.array([99]), 11)
        with RatZarr(place.at(url), readOnly=True) as table:
            assert table.rowCount == 12
            assert table.getColumnNames() == ["a", "b"]
            assert table.readBlock("a", 7, 5).tolist() == [7, 8, 0, 0, 99]

    def test_zarr_opens_it_as_it_is(self, place):
        url = place.new()
        with make(place.at(url), 9, a=("int32",), w=("float32", 3), s=(STRING,)) as table:
            table.writeBlock("a", np.arange(9), 0)
            table.writeBlock("s", np.array(["é"] * 9), 0)
        group = place.open(url)["RAT"]
        assert dict(group.arrays()).keys() == {"a", "w", "s"}
        assert group["a"].metadata.dimension_names == ("row",)
        assert group["w"].metadata.dimension_names == ("row", "value")
        assert raw(place, url, "a").tolist() == list(range(9))
        assert raw(place, url, "s").tolist() == ["é"] * 9
        assert not raw(place, url, "w").any()

    def test_zarr_writes_into_it(self, place):
        """Columns that another program wrote through zarr can be read."""
        url = place.new()
        make(place.at(url), 9, a=("int32",), s=(STRING,), b=(BYTES,)).close()
        group = place.edit(url)["RAT"]
        group["a"][2:7] = [5, 6, 7, 8, 9]
        group["s"][:] = np.array([f"s{n}" for n in range(9)], STRING)
        with RatZarr(place.at(url), readOnly=True) as table:
            assert table.readBlock("a", 0, 9).tolist() == [0, 0, 5, 6, 7, 8, 9, 0, 0]
            assert table.readBlock("s", 3, 2).tolist() == ["s3", "s4"]

    def test_a_small_change_leaves_the_rest_alone(self, place):
        """Writing values changes only their chunk, and the modification log in ``zarr.json``."""
        url = place.new()
        with make(place.at(url), 9, chunk=4, a=("int32",), b=("int32",)) as table:
            table.writeBlock("a", np.arange(9), 0)
            table.writeBlock("b", np.arange(9), 0)
            table.flush()
            before = place.objects(url)
            table.writeBlock("a", np.array([70]), 5)
        after = place.objects(url)
        changed = {key for key in after if after[key] != before.get(key)}
        assert changed == {"RAT/a/c/1"}
        assert after.keys() == before.keys()

    def test_foreign_members_of_documents_are_kept(self, place):
        """Attributes of another program survive every change."""
        url = place.new()
        make(place.at(url), 9, chunk=4, a=("int32",)).close()
        root = place.edit(url)
        root["RAT"].attrs["theirs"] = {"x": [1, None, 1.5]}
        root["RAT/a"].attrs["theirs"] = "é"
        root.attrs["theirs"] = True
        with RatZarr(place.at(url)) as table:
            table.setRowCount(12)
            table.setChunkSize(5)
            table.createColumn("b", "int8")
            table.writeBlock("a", np.arange(12), 0)
        assert document(place, url, "RAT")["attributes"]["theirs"] == {"x": [1, None, 1.5]}
        assert document(place, url, "RAT/a")["attributes"]["theirs"] == "é"
        assert document(place, url)["attributes"]["theirs"] is True
