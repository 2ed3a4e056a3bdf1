"""Text of chunks as Arrow arrays, without a Python object for each string.

A chunk of text is the number of its strings, then the length and the UTF-8 of each. Apart from the
number this is also how Parquet stores strings in a page (its encoding PLAIN). So Arrow's reader of
Parquet decodes a chunk as the only page of a file in memory, several times as fast as numpy, and at
the same time into a dictionary of the different strings.
"""

from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ratzarr.codecs.strings import to_offsets

__all__ = ["DICTIONARY", "as_dictionary", "text_of_chunk"]

Array = NDArray[Any]

DICTIONARY = pa.dictionary(pa.int32(), pa.string())
HEADER = 4
"""Size of a length, and of the number of strings."""
SAMPLE = 256
"""Number of strings sampled to see whether most strings of a chunk are different."""
ROUND = 2**16
"""Sizes of pages are multiples of this, so that chunks of similar size share a cached header."""
MAX_BYTES = 2**30
"""Larger chunks, in bytes, are decoded by numpy instead of Arrow."""


def text_of_chunk(
    data: Any, count: int, first: int, stop: int, *, dictionary: bool = False
) -> Any | tuple[Array, Array]:
    """Return strings of a chunk.

    Parameters
    ----------
    data, count, first, stop
        See :func:`ratzarr.codecs.strings.to_offsets`.
    dictionary : bool
        Return a dictionary array, if the strings seem to repeat.

    Returns
    -------
    pyarrow.BinaryArray, pyarrow.DictionaryArray of binary, or (offsets, bytes)
        Not validated: the bytes may not be UTF-8.

    Raises
    ------
    ValueError
        If the lengths in the data do not fit the data.
    """
    raw = np.frombuffer(data, np.uint8)
    if first < stop and HEADER * (count + 1) <= len(raw) <= MAX_BYTES:
        found = _page(raw, count, dictionary=dictionary and _repeats(raw, count))
        if found is not None:
            return found.slice(first, stop - first)
    return to_offsets(data, count, first, stop)


def as_dictionary(array: Any) -> Any:
    """Return text as a dictionary array, without a search for equal strings."""
    if pa.types.is_dictionary(array.type):
        return array
    # Arrow can't join arrays whose dictionaries have nulls.
    valid = array.is_valid().to_numpy(zero_copy_only=False)
    indices = pa.array(np.cumsum(valid, dtype=np.int32) - 1, mask=~valid)
    return pa.DictionaryArray.from_arrays(indices, array.drop_null())


def _repeats(raw: Array, count: int) -> bool:
    """Return True if at most a quarter of the first strings are different."""
    view, end, seen = memoryview(raw), HEADER, set()
    sample = min(count, SAMPLE)
    for _ in range(sample):
        start = end + HEADER
        end = start + int.from_bytes(view[end:start], "little")
        seen.add(bytes(view[start:end]))
    return 4 * len(seen) <= sample


def _page(raw: Array, count: int, *, dictionary: bool) -> Any:
    """Return a chunk's strings; None if Arrow can't decode them, or the bytes do not fit."""
    try:
        import pyarrow.parquet as pq
    except ImportError:
        # Some builds of Arrow have no Parquet.
        return None
    if raw[:HEADER].tobytes() != count.to_bytes(HEADER, "little"):
        return None
    size = -(-len(raw) // ROUND) * ROUND
    before, after = _file(count, size)
    place = len(before)
    end = place + len(raw) - HEADER
    file = np.empty(place + size + len(after), np.uint8)
    file[:place] = np.frombuffer(before, np.uint8)
    file[place:end] = raw[HEADER:]
    file[end : place + size] = 0
    file[place + size :] = np.frombuffer(after, np.uint8)
    try:
        parquet = pq.ParquetFile(
            pa.BufferReader(pa.py_buffer(file)), read_dictionary=["text"] if dictionary else None
        )
        column = parquet.read(use_threads=False)["text"]
    except (pa.ArrowException, OSError):
        return None
    if column.num_chunks != 1:
        return None
    found = column.chunk(0)
    # The page ends in zeros, which are no strings of the chunk.
    if dictionary:
        lengths = pc.binary_length(found.dictionary).to_numpy()
        total = int(lengths[found.indices.to_numpy()].sum(dtype=np.int64))
    else:
        offsets = np.frombuffer(found.buffers()[1], np.int32)
        total = int(offsets[count]) - int(offsets[0])
    return found if total + HEADER * (count + 1) == len(raw) else None


@lru_cache(256)
def _file(count: int, size: int) -> tuple[bytes, bytes]:
    """Return what comes before and after a page of this size in a Parquet file."""
    import pyarrow.parquet as pq

    # Arrow writes a page of as many strings, all of them empty but the last.
    offsets = np.zeros(count + 1, np.int32)
    offsets[-1] = size - HEADER * count
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.zeros(int(offsets[-1]), np.uint8))]
    array = pa.BinaryArray.from_buffers(pa.binary(), count, buffers)
    schema = pa.schema([pa.field("text", pa.binary(), nullable=False)])
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.table([array], schema=schema), sink,
        compression="none", use_dictionary=False, write_statistics=False, store_schema=False,
        row_group_size=count, max_rows_per_page=count, write_batch_size=count,
        data_page_size=2 * MAX_BYTES - 1, data_page_version="1.0",
    )  # fmt: skip
    file = sink.getvalue()
    column = pq.ParquetFile(pa.BufferReader(file)).metadata.row_group(0).column(0)
    stop = column.data_page_offset + column.total_compressed_size
    return file[: stop - size].to_pybytes(), file[stop:].to_pybytes()
