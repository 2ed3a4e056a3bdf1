"""Files of a store damaged in every way, and what their readers make of it.

The values to compare with are numpy's own.
"""

from collections import Counter

import numpy as np

from ratzarr import RatZarr, RatZarrError
from ratzarr.testing.helpers import BYTES, STRING, message

ROWS, CHUNK = 50, 20
"""Of the last chunk only ten rows are the table's."""


def values_of(name, rows):
    """Return a column's values."""
    number = np.arange(rows)
    random = np.random.default_rng(7)
    made = {
        "int8": lambda: (number % 251 - 125).astype("int8"),
        "int16": lambda: (number * 601 % 65521 - 32760).astype("int16"),
        "int32": lambda: random.integers(-(2**31), 2**31, rows).astype("int32"),
        "float64": lambda: np.where(number % 7, random.random(rows), np.nan),
        "bool": lambda: random.random(rows) < 0.5,
        "string": lambda: np.array(
            [f"größe {n}" * (i % 3) for i, n in enumerate(random.integers(0, 99, rows))],
            dtype=STRING,
        ),
        "bytes": lambda: objects([random.bytes(i % 11) for i in number]),
        "fixed": lambda: np.array([b"ab\x00c"[: i % 5] for i in number], dtype="S4"),
        "datetime": lambda: (number * 86400007).astype("datetime64[ms]"),
        "wide": lambda: random.integers(0, 9, (rows, 3)).astype("uint16"),
        "one row": lambda: number * 3,
        "all fill": lambda: np.zeros(rows, "int32"),
    }
    return made[name]()


def objects(values):
    array = np.empty(len(values), BYTES)
    array[:] = values
    return array


NAMES = (
    "int8", "int16", "int32", "float64", "bool", "string", "bytes", "fixed", "datetime", "wide",
    "one row", "all fill",
)  # fmt: skip


def fill(url, names, rows=ROWS, chunk=CHUNK):
    with RatZarr(url) as table:
        table.setRowCount(rows)
        for name in names:
            values = values_of(name, rows)
            table.createColumn(
                name,
                values.dtype,
                *values.shape[1:],
                chunkSize=1 if name == "one row" else chunk,
                complete=False,
            )
            table.writeBlock(name, values, 0)
            table.setComplete(name)
    return url


class Damage:
    """Damages one file of a store at a time, in its place, and puts back what was in it."""

    def __init__(self, url):
        self._url, self._key, self._whole = url, "", b""

    def put(self, key, content):
        """Write damaged content."""
        if key != self._key:
            self.heal()
            self._key, self._whole = key, content_of(self._url, key)
        self._write(content)

    def heal(self):
        """Write what was there."""
        if self._key:
            self._write(self._whole)
        self._key = ""

    def _write(self, content):
        # Not emptied first: file systems then flush the file to the disk when it is closed.
        with open(f"{self._url}/{self._key}", "r+b") as file:
            file.write(content)
            file.truncate()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.heal()


def flips(content, stretch=None, sample=()):
    """Yield the content with each one of its bits flipped (of large ones, of those named)."""
    size = len(content)
    places = range(size)
    if stretch is not None and size > 2 * stretch:
        places = sorted({*range(stretch), *range(size - stretch, size), *sample})
    for place in places:
        for bit in range(8):
            bad = bytearray(content)
            bad[place] ^= 1 << bit
            yield f"bit {bit} of byte {place}", bytes(bad)


def cuts(content, lengths=None):
    """Yield the content cut off, at every length."""
    for length in range(len(content)) if lengths is None else lengths:
        yield f"cut to {length} bytes", content[:length]


def others(content):
    """Yield the content with bytes put behind, before, zeroed, doubled and taken out."""
    for more in (b"\0", b"\n", b" ", b"\t\n", b"\xff", b"\0" * 4, b"\0" * 16, b"}", content):
        yield f"{more[:20]!r} behind it", content + more
        yield f"{more[:20]!r} before it", more + content
    size = len(content)
    step = max(1, size // 40)
    for start in range(0, size, step):
        for length in (1, 4, 13, 64, size):
            zeroed = bytes(min(length, size - start))
            bad = content[:start] + zeroed + content[start + length :]
            if bad != content:
                yield f"{length} bytes from {start} zeroed", bad
            yield (
                f"{length} bytes from {start} taken out",
                content[:start] + content[start + length :],
            )


def same(got, expected):
    if got.dtype != expected.dtype or got.shape != expected.shape:
        return False
    if got.dtype.kind in "OT":
        return got.tolist() == expected.tolist()
    return got.tobytes() == expected.tobytes()


def content_of(url, key):
    with open(f"{url}/{key}", "rb") as file:
        return file.read()


def outcomes(damage, key, damages, read, expected, fragments):
    """Damage an object in all these ways; count what comes of it."""
    counts = Counter()
    for what, bad in damages:
        damage.put(key, bad)
        try:
            got = read()
        except RatZarrError as error:
            said = message(error)
            for fragment in fragments:
                assert fragment in said, f"{key}, {what}: {fragment!r} is not in {said}"
            counts["error"] += 1
        else:
            counts["right" if same(got, expected) else f"WRONG: {what}"] += 1
    damage.heal()
    return counts
