"""Make the golden store of the present format version, and the values it must give back.

Run once when FORMAT_VERSION is raised, never to make a failing test pass:
``python -m tests.data.make_golden``. What it made is committed and read for ever.
"""

import json
import sys
from pathlib import Path

import numpy as np

from ratzarr import RatZarr
from ratzarr.format.names import FORMAT_VERSION

HERE = Path(__file__).parent
ROWS = 230
STORE = HERE / f"golden-v{FORMAT_VERSION}.zarr"
VALUES = HERE / f"golden-v{FORMAT_VERSION}.json"
SUMMED = HERE / f"summed-v{FORMAT_VERSION}.zarr"
MARKED = HERE / f"marked-v{FORMAT_VERSION}.zarr"


def columns() -> dict[str, np.ndarray]:
    """Return values of every kind, the same each time."""
    n = np.arange(ROWS)
    found: dict[str, np.ndarray] = {}
    for bits in (8, 16, 32, 64):
        found[f"int{bits}"] = (n * 7919).astype(f"int{bits}")
        found[f"int{bits}"][3] = -(2 ** (bits - 1))
        found[f"uint{bits}"] = (n * 7919).astype(f"uint{bits}")
    for bits in (16, 32, 64):
        values = (n / 7).astype(f"float{bits}")
        values[:4] = np.nan, np.inf, -np.inf, -0.0
        found[f"float{bits}"] = values
    found["nan payloads"] = (0x7FF8000000000000 + n).astype("u8").view("f8")
    found["bool"] = n % 3 == 0
    text = np.array(["", " leading", "tab\tnewline\n", "größe", "🛰" * 20, "nul\x00inside"], object)
    found["string"] = text[n % len(text)].astype(np.dtypes.StringDType())
    found["S6"] = np.array([b"", b"abc", b"abcdef"])[n % 3]
    bytes_ = np.array([b"", b"\x00\x01\xff", b"x" * 100], object)
    found["bytes"] = bytes_[n % 3]
    found["datetime us"] = (n * 86_400_000_000 + n).astype("M8[us]")
    found["datetime us"][5] = np.datetime64("NaT")
    found["datetime D"] = (n - 100).astype("M8[D]")
    found["yearly"] = (n[:, None] * 10 + np.arange(4)).astype("u2")
    for name in ("b1/b2", "100%", "a%2Fb", ".hidden", "zarr.json", "u\u0308", "x" * 250, "größe"):
        found[name] = (n + len(name)).astype("i4")
    return found


def as_json(values: np.ndarray) -> object:
    """Return values in a form that JSON holds exactly."""
    if values.dtype.kind in "f":
        return values.view(f"u{values.dtype.itemsize}").tolist()
    if values.dtype.kind == "M":
        return values.view("i8").tolist()
    if values.dtype.kind in "OS":
        return [bytes(value).hex() for value in values.tolist()]
    return values.tolist()


def of_many_blocks() -> dict[str, np.ndarray]:
    """Return values of which a chunk has several blocks, and that pack well."""
    n = np.arange(150_000)
    return {"steps": n // 1000 * 3, "thirds": (n // 500 / 3), "codes": (n % 250 // 50).astype("i4")}


def make_summed() -> None:
    """Write the store whose blocks have checksums."""
    with RatZarr(SUMMED) as table:
        table.setRowCount(150_000)
        table.setChunkSize(100_000)
        for name, values in of_many_blocks().items():
            table.createColumn(name, values.dtype)
            table.writeBlock(name, values, 0)


def marked_strings() -> list[str]:
    """Return strings of which a chunk has marks."""
    return [f"größe {n}" * (n % 3) for n in range(15_000)]


def make_marked() -> None:
    """Write the store whose chunks of text have marks."""
    with RatZarr(MARKED) as table:
        table.setRowCount(15_000)
        table.setChunkSize(10_000)
        table.createColumn("text", str)
        table.writeBlock("text", np.array(marked_strings(), np.dtypes.StringDType()), 0)


def main() -> None:
    """Write stores and values; refuse to replace ones that are there."""
    sys.argv = ["make_golden.py", "--year", "2026"]
    if not SUMMED.exists():
        make_summed()
    if not MARKED.exists():
        make_marked()
    if STORE.exists():
        sys.exit(f"{STORE} is there already, and is kept for ever")
    expected = {}
    with RatZarr(STORE) as table:
        table.setRowCount(ROWS)
        table.setChunkSize(100)
        for name, values in columns().items():
            width = values.shape[1] if values.ndim == 2 else 1
            table.createColumn(name, values.dtype, width)
            table.writeBlock(name, values, 0)
            expected[name] = {"dtype": values.dtype.str, "values": as_json(values)}
        table.createColumn("untouched", np.int32, fillValue=-7)
        expected["untouched"] = {"dtype": "<i4", "values": [-7] * ROWS}
        table.getColumnAttributeMapping("int32")["units"] = "class"
        table.getRatAttributeMapping()["source"] = "seg.kea"
    VALUES.write_text(json.dumps(expected, separators=(",", ":")))


if __name__ == "__main__":
    main()
