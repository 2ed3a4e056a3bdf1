"""Text as Arrow arrays, plain and as dictionaries."""

from collections import Counter

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from zarr.storage import MemoryStore, WrapperStore

from ratzarr import RatZarr
from ratzarr.codecs.strings import pack
from ratzarr.interop.text import text_of_chunk

pytestmark = pytest.mark.main_env_only

ROWS = 25_000
NAMES = ["forest", "", "Küstenwald", "x" * 300, "zero\0byte"]
TEXTS = {
    "few": [NAMES[row % 3] for row in range(ROWS)],
    "long": [NAMES[row * 7 % 5] for row in range(ROWS)],
    "different": [f"segment {row}" for row in range(ROWS)],
    "different later": ["same"] * 2000 + [f"{row}" for row in range(ROWS - 2000)],
    "empty": [""] * ROWS,
}


@pytest.fixture
def rat(tmp_path):
    with RatZarr(tmp_path / "t.rat.zarr", newRowCount=ROWS) as table:
        table.setChunkSize(10_000)
        for name, values in TEXTS.items():
            table.createColumn(name, str)
            table.writeBlock(name, np.array(values, np.dtypes.StringDType()), 0)
        table.createColumn("never written", str)
        yield table


@pytest.mark.parametrize("dictionaries", [False, True])
def test_every_text_is_as_it_was_written(rat, dictionaries):
    scan = rat.scan(dictionaries=dictionaries)
    found = scan.to_table()
    assert found.schema == scan.schema
    assert pa.types.is_dictionary(found["few"].type) == dictionaries
    for name, values in TEXTS.items():
        assert found[name].to_pylist() == values, name
    assert found["never written"].to_pylist() == [""] * ROWS
    found = rat.scan(rows=(9_990, 20_010), dictionaries=dictionaries).to_table()
    assert found["long"].to_pylist() == TEXTS["long"][9_990:20_010]


def test_a_dictionary_has_the_different_strings_of_a_chunk(rat):
    batches = list(rat.scan(["few", "different"], dictionaries=True).to_batches())
    whole = [batch for batch in batches if batch.num_rows >= 5_000]
    assert whole
    for batch in whole:
        assert sorted(batch["few"].dictionary.to_pylist()) == sorted(NAMES[:3])
        assert len(batch["different"].dictionary) == batch.num_rows


class Counting(WrapperStore):
    """Counts the requests for chunks, by column and number."""

    def __init__(self, inner):
        super().__init__(inner)
        self.read = Counter()

    async def get(self, key, *args, **kwargs):
        if "/c/" in key:
            self.read[tuple(key.split("/")[-3::2])] += 1
        return await super().get(key, *args, **kwargs)


@pytest.mark.parametrize("dictionaries", [False, True])
@pytest.mark.parametrize("chunk", [200_000, 150_000, 10_000])
def test_each_chunk_of_text_is_read_once(chunk, dictionaries):
    """The first batches are parts of a chunk, which is decoded once for them."""
    rows, counted = 330_000, Counting(MemoryStore())
    values = {
        "few": np.array(NAMES[:3], np.dtypes.StringDType())[np.arange(rows) % 3],
        "different": np.array([f"{row}" for row in range(rows)], np.dtypes.StringDType()),
    }
    with RatZarr(counted, newRowCount=rows, newChunkSize=chunk) as table:
        for name, one in values.items():
            table[name] = one
    counted.read.clear()
    with RatZarr(counted, readOnly=True) as table:
        batches = list(table.scan(dictionaries=dictionaries).to_batches())
    assert batches[0].num_rows <= 10_000
    found = pa.Table.from_batches(batches)
    for name, one in values.items():
        assert found[name].to_pylist() == one.tolist()
        assert counted.read[name, "0"] == 1
    if dictionaries:
        # A part of a chunk does not carry all strings of the chunk, unless they repeat.
        assert len(batches[0]["different"].dictionary) == batches[0].num_rows
        assert len(batches[0]["few"].dictionary) == 3


@pytest.mark.parametrize(
    "wanted", [ds.field("few") == "Küstenwald", ds.field("row") > 15_000], ids=["text", "rows"]
)
def test_filters_are_exact_with_dictionaries(rat, wanted):
    plain = rat.scan(filter=wanted).to_table()
    found = rat.scan(filter=wanted, dictionaries=True).to_table()
    assert found.num_rows == plain.num_rows > 0
    for name in TEXTS:
        assert found[name].to_pylist() == plain[name].to_pylist()


def test_duckdb_groups_dictionaries(rat):
    scan = rat.scan(dictionaries=True)  # noqa: F841 - DuckDB finds it by its name
    for name in ("few", "long", "different later"):
        found = duckdb.sql(f'SELECT "{name}" AS k, count(*) AS n FROM scan GROUP BY k')
        assert found.types[0] == "VARCHAR"
        different, counts = np.unique(np.array(TEXTS[name], object), return_counts=True)
        assert dict(found.fetchall()) == dict(zip(different, counts.tolist(), strict=True))
    found = duckdb.sql("SELECT count(*) FROM scan WHERE few = 'forest' OR few IN ('', 'a')")
    assert found.fetchall() == [(sum(one in ("forest", "") for one in TEXTS["few"]),)]


@pytest.mark.parametrize("dictionary", [False, True])
def test_bytes_that_are_no_text_of_so_many_strings_are_refused(dictionary):
    good = np.array(pack(np.array(["ab", "c"] * 1000, np.dtypes.StringDType())))
    assert len(text_of_chunk(good, 2000, 0, 2000, dictionary=dictionary)) == 2000
    huge = good.copy()
    huge[4:8] = 255
    cases = [good[:-1], good[:-4], np.append(good, good[-1]), np.append(good, 0), huge]
    for bad in cases:
        with pytest.raises(ValueError, match=r"."):
            text_of_chunk(bad.astype(np.uint8), 2000, 0, 2000, dictionary=dictionary)
