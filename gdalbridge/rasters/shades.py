"""Colours of a column's values, from a colour map of matplotlib."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError
from ratzarr.interop import required

__all__ = ["PERCENTILES", "Shades", "class_colors", "limits_of"]

Array = NDArray[Any]

PERCENTILES = (2.0, 98.0)
"""The values between these get the ends of a colour map, by default."""


def color_map(name: str) -> Any:
    """Return a colour map of matplotlib.

    Raises
    ------
    BridgeError
        If there is none of this name.
    """
    matplotlib = required("matplotlib", "plot", "a colour map")
    try:
        return matplotlib.colormaps[name]
    except KeyError:
        raise BridgeError(
            f"matplotlib has no colour map {name!r}: some are viridis, magma, cividis, RdYlGn, "
            "terrain, tab20"
        ) from None


def limits_of(values: Array) -> tuple[float, float]:
    """Return the values that get the first and the last colour, from a sample of pixels."""
    known = values.astype(np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return 0.0, 1.0
    low, high = np.percentile(known, PERCENTILES)
    if low == high:
        low, high = known.min(), known.max()
    return float(low), float(high if high > low else low + 1)


class Shades:
    """Colours of numbers between two limits; beyond them, the first and the last colour.

    Parameters
    ----------
    name : str
        A colour map of matplotlib.
    limits : (float, float)
    """

    def __init__(self, name: str, limits: tuple[float, float]) -> None:
        low, high = limits
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise BridgeError(f"limits are two numbers, the smaller first: got {low} and {high}")
        self.map = color_map(name)
        self.limits = (float(low), float(high))
        self._colors: Array = self.map(np.arange(self.map.N), bytes=True)

    def rgba(self, values: Array, has: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Return colours of shape (4, ...); without a value, and for NaN, all are 0."""
        low, high = self.limits
        kind: Any = np.float32 if values.dtype.itemsize <= 2 else np.float64
        known = has if values.dtype.kind != "f" else has & ~np.isnan(values)
        with np.errstate(invalid="ignore", over="ignore"):
            at: Array = (values.astype(kind) - kind(low)) * kind(self.map.N / (high - low))
            np.clip(at, 0, self.map.N - 1, out=at)
        at[~known] = 0
        found = self._colors.T[:, at.astype(np.intp)]
        found[:, ~known] = 0
        return found


def class_colors(name: str, count: int) -> NDArray[np.uint8]:
    """Return colours of classes, of shape (count, 4): one after the other, or spread evenly.

    Colour maps of few colours, such as tab20, are for classes: they are repeated.
    """
    found = color_map(name)
    if found.N < 256:
        places: Sequence[int] | Array = np.arange(count) % found.N
    else:
        places = np.linspace(0, found.N - 1, max(count, 1)).astype(int)[:count]
    colors: NDArray[np.uint8] = found(places, bytes=True)
    return colors.reshape(-1, 4)
