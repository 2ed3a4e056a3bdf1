"""Columns like those of real tables: what a segmentation of a satellite image has."""

import numpy as np

__all__ = ["NUMBERS", "STRINGS", "make"]

CLASSES = [
    "Closed forest",
    "Open woodland",
    "Native grassland",
    "Cropping, dryland",
    "Cropping, irrigated",
    "Intensive uses",
    "Water, lakes and rivers",
    "Küstenfeuchtgebiet",
]
NUMBERS = ("count", "mean", "two_decimals", "class", "sequence")
STRINGS = ("class_name", "label")


def make(name: str, rows: int, seed: int = 0) -> np.ndarray:
    """Return a column.

    count : int32, pixels of each segment, many small and few large ones
    mean : float64, mean reflectance with all its noise
    two_decimals : float64, as a spreadsheet would have it
    class : int32, 20 codes
    sequence : int32, 1 to rows
    class_name : strings, 8 different ones, one of them not ASCII
    label : strings, all different
    """
    rng = np.random.default_rng(seed)
    if name == "count":
        return (rng.pareto(1.2, rows) * 20 + 1).clip(1, 2**31 - 1).astype("i4")
    if name == "mean":
        return rng.normal(1200, 90, rows)
    if name == "two_decimals":
        return np.round(rng.normal(12, 9, rows), 2)
    if name == "class":
        return rng.integers(0, 20, rows).astype("i4")
    if name == "sequence":
        return np.arange(1, rows + 1, dtype="i4")
    text = np.dtypes.StringDType()
    if name == "class_name":
        return np.array(CLASSES, text)[rng.integers(0, len(CLASSES), rows)]
    if name == "label":
        return np.strings.add(np.array("segment ", text), np.arange(rows).astype(text))
    raise ValueError(f"no column {name!r} here")
