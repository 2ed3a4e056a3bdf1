"""One chunk to bytes and back, by the codecs that a column's ``zarr.json`` names.

The codecs are zarr's own; this module only runs the chain on one chunk at a time, in
the calling thread, so that whoever reads and writes decides what happens in parallel.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.core.array_spec import ArrayConfig, ArraySpec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.chunk_utils import ChunkTransform
from zarr.core.codec_pipeline import AsyncChunkTransform
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.core.sync import sync

__all__ = ["ChunkCodec"]

Array = NDArray[Any]


class ChunkCodec:
    """Encodes and decodes the chunks of one column.

    Parameters
    ----------
    metadata : ArrayV3Metadata
        The column's.
    chunk_shape : tuple of int
        (rows,) or (rows, width) of every chunk, the last one included.
    """

    def __init__(self, metadata: ArrayV3Metadata, chunk_shape: tuple[int, ...]) -> None:
        self._prototype = default_buffer_prototype()
        # Chunks that hold nothing but the fill value are written too: without the right
        # to list a bucket a missing object can't be told from a forbidden one.
        self._spec = ArraySpec(
            shape=chunk_shape,
            dtype=metadata.data_type,
            fill_value=metadata.fill_value,
            config=ArrayConfig.from_dict({"write_empty_chunks": True}),
            prototype=self._prototype,
        )
        self._shape = chunk_shape
        self._dtype = metadata.data_type.to_native_dtype()
        codecs = metadata.codecs
        try:
            self._sync: ChunkTransform | None = ChunkTransform(codecs=codecs)
        except TypeError:
            # A codec that only runs in an event loop; none that we write.
            self._sync = None
            self._async = AsyncChunkTransform(codecs=codecs)

    def encode(self, chunk: Array) -> bytes:
        """Return the bytes of a chunk of the full chunk shape."""
        array = self._prototype.nd_buffer.from_numpy_array(chunk)
        if self._sync is not None:
            encoded = self._sync.encode_chunk(array, self._spec)
        else:
            encoded = sync(self._async.encode_chunk(array, self._spec))
        if encoded is None:  # pragma: no cover - only with write_empty_chunks=False
            raise AssertionError("a codec dropped a chunk")
        return encoded.to_bytes()

    def decode(self, data: bytes) -> Array:
        """Return the chunk that ``data`` holds.

        Raises
        ------
        Exception
            Whatever a codec raises for bytes that it did not write; the caller knows
            which object it was and says so. A chunk of another shape or dtype than the
            column's is a ValueError.
        """
        buffer = self._prototype.buffer.from_bytes(data)
        if self._sync is not None:
            decoded = self._sync.decode_chunk(buffer, self._spec)
        else:
            decoded = sync(self._async.decode_chunk(buffer, self._spec))
        chunk = np.asarray(decoded.as_ndarray_like())
        if chunk.shape != self._shape or chunk.dtype != self._dtype:
            raise ValueError(
                f"expected {self._dtype} of shape {self._shape}, got {chunk.dtype} of "
                f"shape {chunk.shape}"
            )
        return chunk
