"""What the default codecs were chosen by: ratio and speed for data that tables hold."""

import time

import numpy as np
from zarr.buffer import default_buffer_prototype
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ZstdCodec
from zarr.core.array_spec import ArrayConfig, ArraySpec
from zarr.core.chunk_utils import ChunkTransform
from zarr.dtype import parse_dtype

ROWS = 500_000


def samples() -> dict[str, np.ndarray]:
    """Return columns like those of real tables."""
    rng = np.random.default_rng(0)
    counts = rng.pareto(1.2, ROWS) * 20
    return {
        "int32, ascending ids": np.arange(ROWS, dtype="i4") + 10**6,
        "int32, histogram": counts.clip(0, 2**31 - 1).astype("i4"),
        "int32, 20 classes": rng.integers(0, 20, ROWS).astype("i4"),
        "uint8, 8 classes": rng.integers(0, 8, ROWS).astype("u1"),
        "uint16, mean reflectance": rng.normal(1200, 90, ROWS).astype("u2"),
        "float32, mean reflectance": rng.normal(1200, 90, ROWS).astype("f4"),
        "float64, mean reflectance": rng.normal(1200, 90, ROWS),
        "float64, two decimals": np.round(rng.normal(12, 9, ROWS), 2),
        "bool": rng.random(ROWS) < 0.3,
    }


CODECS = {
    "zstd, zarr's default": ZstdCodec(level=0),
    "lz4 + shuffle": BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"),
    "zstd 1 + shuffle": BloscCodec(cname="zstd", clevel=1, shuffle="shuffle"),
    "lz4 + bitshuffle": BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"),
}


def measure(values: np.ndarray, codec: object) -> tuple[float, float, float]:
    """Return ratio, MB/s packed and MB/s unpacked, the best of four runs."""
    prototype = default_buffer_prototype()
    dtype = parse_dtype(values.dtype, zarr_format=3)
    spec = ArraySpec(
        values.shape, dtype, dtype.default_scalar(), ArrayConfig.from_dict({}), prototype
    )
    chain = [one.evolve_from_array_spec(spec) for one in (BytesCodec(), codec, Crc32cCodec())]
    transform = ChunkTransform(codecs=tuple(chain))
    packing, unpacking = [], []
    for _ in range(4):
        started = time.perf_counter()
        packed = transform.encode_chunk(prototype.nd_buffer.from_numpy_array(values), spec)
        middle = time.perf_counter()
        transform.decode_chunk(packed, spec)
        packing.append(middle - started)
        unpacking.append(time.perf_counter() - middle)
    size = values.nbytes
    return size / len(packed), size / min(packing) / 1e6, size / min(unpacking) / 1e6


def main() -> None:
    """Print the table of docs/decisions/0001-codecs.md."""
    print("column | " + " | ".join(CODECS))
    for name, values in samples().items():
        cells = ["{:.1f}, {:.0f}, {:.0f}".format(*measure(values, c)) for c in CODECS.values()]
        print(" | ".join([name, *cells]))
