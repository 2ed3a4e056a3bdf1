"""Colours of a column's values, from a colour map of matplotlib."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError
from ratzarr.interop import required

__all__ = ["PERCENTILES", "Shades", "class_colors", "limits_of", "own_rgba"]

Array = NDArray[Any]

PERCENTILES = (2.0, 98.0)
"""The values between these get the ends of a colour map, by default."""
LEAST = 1e-300
"""The smallest difference of two limits, whose steps are ordinary numbers."""


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
    low, high = map(float, np.percentile(known, PERCENTILES))
    if low == high:
        low, high = float(known.min()), float(known.max())
    if high - low < LEAST:
        high = low + max(1, abs(low) * 1e-6)
    return low, high


class Shades:
    """Colours of numbers between two limits; beyond them, the first and the last colour.

    Parameters
    ----------
    name : str
        A colour map of matplotlib.
    limits : (float, float)
    """

    def __init__(self, name: str, limits: tuple[float, float]) -> None:
        low, high = map(float, limits)
        if not LEAST <= high - low < math.inf:
            raise BridgeError(
                "limits are two numbers, the smaller first, and neither too close nor too far apart: "
                f"got {low} and {high}"
            )
        self.map = color_map(name)
        self.limits = (low, high)
        self._colors: Array = self.map(np.arange(self.map.N), bytes=True)

    def rgba(self, values: Array, has: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Return colours of shape (4, ...); without a value, and for NaN, all are 0."""
        low, high = self.limits
        is_small = values.dtype.itemsize <= 2 and max(-low, high, 1 / (high - low)) < 1e30
        kind: Any = np.float32 if is_small else np.float64
        known = has if values.dtype.kind != "f" else has & ~np.isnan(values)
        with np.errstate(invalid="ignore", over="ignore"):
            at: Array = (values.astype(kind) - kind(low)) * kind(self.map.N / (high - low))
            np.clip(at, 0, self.map.N - 1, out=at)
        at[~known] = 0
        found = self._colors.T[:, at.astype(np.intp)]
        found[:, ~known] = 0
        return found


def own_rgba(
    columns: Sequence[Array], has: NDArray[np.bool_], names: Sequence[str]
) -> NDArray[np.uint8]:
    """Return the colours that columns have, of shape (4, ...); without a value, all are 0.

    Parameters
    ----------
    columns : sequence of ndarray
        Red, green, blue and perhaps opacity.
    has : ndarray of bool
        Which places have values.
    names : sequence of str
        Of the columns, for messages.

    Raises
    ------
    BridgeError
        If a value is not an integer from 0 to 255.
    """
    found = np.zeros((4, *has.shape), np.uint8)
    found[3] = 255
    for place, (values, name) in enumerate(zip(columns, names, strict=True)):
        wrong = has & ~((values >= 0) & (values <= 255) & (values == np.floor(values)))
        if wrong.any():
            raise BridgeError(
                f"column {name!r} has the value {values[wrong][0]}, and colours are integers from 0 "
                "to 255"
            )
        found[place] = np.where(has, values, 0)
    found[3] *= has
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
