import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratzarr import RatZarrError
from ratzarr.columns.chunk_io import parts
from ratzarr.format.blocks import Block, chunk_count


@given(
    rows=st.integers(1, 60),
    chunk_rows=st.integers(1, 25),
    start=st.integers(0, 59),
    length=st.integers(0, 60),
)
def test_parts_cover_the_block_once_and_in_order(rows, chunk_rows, start, length):
    start = min(start, rows)
    length = min(length, rows - start)
    seen = []
    for part in parts(start, start + length, chunk_rows, rows):
        first = part.chunk * chunk_rows
        in_table = range(first + part.in_chunk.start, first + part.in_chunk.stop)
        assert list(in_table) == list(
            range(start + part.in_block.start, start + part.in_block.stop)
        )
        of_chunk = set(range(first, min(first + chunk_rows, rows)))
        assert part.whole == (set(in_table) == of_chunk)
        seen += in_table
    assert seen == list(range(start, start + length))


@pytest.mark.parametrize(("start", "length"), [(-1, 3), (0, -1)])
def test_a_block_has_no_negative_rows(start, length):
    with pytest.raises(RatZarrError, match="row 0 or later"):
        Block(start, length)


@pytest.mark.parametrize(
    ("rows", "chunks"), [(0, 0), (1, 1), (10, 1), (11, 2), (2**62, 2**62 // 10 + 1)]
)
def test_chunk_count(rows, chunks):
    assert chunk_count(rows, 10) == chunks
