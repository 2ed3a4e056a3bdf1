"""Text of a chunk as fixed-width bytes, which is how GDAL takes and gives it. Pure.

It is in pieces, each as wide as the longest text in it. Whoever reads a page gets it as
wide as the page's longest, and no object of Python is made of any text. What fixed-width
bytes can't hold (zero characters), or hold at too high a price (long texts), is refused:
it has to be an array of strings.
"""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["PaddedText", "narrowed"]

Array = NDArray[Any]

STRING = np.dtypes.StringDType()
LONGEST = 255
"""Bytes of a text that is kept here."""
MOST = 64 * 2**20
"""Bytes that a chunk may take."""


def narrowed(text: Array) -> Array | None:
    """Return a copy of fixed-width bytes as wide as the longest; None with zeros in them."""
    lengths = np.strings.str_len(text)
    narrow = text.astype(f"S{int(lengths.max(initial=0)) or 1}")
    # A zero counts as one of the text's, unless it is at the end, and is none of what it holds.
    return narrow if np.count_nonzero(narrow.view(np.uint8)) == int(lengths.sum()) else None


class PaddedText:
    """Rows of text.

    Parameters
    ----------
    pieces : list of ndarray of fixed-width bytes
        UTF-8 with no zero characters, in order.
    most : int
        Bytes that it may take.
    """

    def __init__(self, pieces: list[Array], *, most: int = MOST) -> None:
        self._pieces, self._most = pieces, most
        self._stops = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._stops[-1]) if len(self._stops) else 0

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return sum(piece.nbytes for piece in self._pieces)

    def _where(self, first: int, last: int) -> list[tuple[int, int, int]]:
        """Return the pieces that rows are in, and which rows of these."""
        found = []
        number = int(np.searchsorted(self._stops, first, side="right"))
        while first < last:
            begin = int(self._stops[number]) - len(self._pieces[number])
            stop = min(last, int(self._stops[number]))
            found.append((number, first - begin, stop - begin))
            first, number = stop, number + 1
        return found

    def padded(self, first: int, last: int) -> Array:
        """Return rows as fixed-width bytes, as they lie there; not to be changed."""
        parts = [
            self._pieces[number][one:other] for number, one, other in self._where(first, last)
        ]
        if not parts:
            return np.empty(0, "S1")
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def strings(self, first: int, last: int) -> Array:
        """Return rows as strings."""
        return self.padded(first, last).astype(STRING)

    def put(self, first: int, values: Array) -> bool:
        """Change rows, if it can hold the strings; else change nothing and return False."""
        encoded = [text.encode("utf-8") for text in values.tolist()]
        widest = max(map(len, encoded), default=0)
        if widest > LONGEST or b"\0" in b"".join(encoded):
            return False
        where = self._where(first, first + len(values))
        widths = {number: max(widest, self._pieces[number].itemsize) for number, _, _ in where}
        more = [len(self._pieces[n]) * (w - self._pieces[n].itemsize) for n, w in widths.items()]
        if self.size + sum(more) > self._most:
            return False
        text = np.array(encoded, f"S{widest or 1}")
        done = 0
        for number, one, other in where:
            piece = self._pieces[number]
            if piece.itemsize < widest or not piece.flags.writeable:
                piece = self._pieces[number] = piece.astype(f"S{widths[number]}")
            piece[one:other] = text[done : done + other - one]
            done += other - one
        return True

    def grown(self, rows: int) -> Self:
        """Return it with more rows, which hold nothing."""
        return type(self)([*self._pieces, np.zeros(rows, "S1")], most=self._most)
