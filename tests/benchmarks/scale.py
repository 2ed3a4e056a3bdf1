"""How large the benchmarks' tables are, and how often each is run."""

import os
from dataclasses import dataclass
from pathlib import Path

__all__ = ["FULL", "QUICK", "Scale"]


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes for a run."""

    rows: tuple[int, ...]
    """Of the tables that are written and read."""
    text_rows: int
    """Of tables of strings, at most."""
    rounds: int
    growing: tuple[int, ...]
    """Rows, each ten times the one before, to see that time is linear."""
    counted: int
    """Rows of a table that is only opened."""
    columns: int
    """Of a table with many."""
    side: int
    """Width and height of a raster that is painted."""
    queried: int
    """Rows of a table that is asked in SQL."""
    pixels: tuple[int, int]
    """Of rasters for zonal statistics; the second is ten times the first."""
    segments: tuple[int, int, int]
    """Of such rasters, about; each ten times the one before."""
    folder: Path | None = None
    """Where to put the tables; None: where temporary files go."""


FOLDER = Path(os.environ["BENCH_FOLDER"]) if "BENCH_FOLDER" in os.environ else None
FULL = Scale(
    rows=(5_000_000, 50_000_000),
    text_rows=5_000_000,
    rounds=5,
    growing=(100_000, 1_000_000, 10_000_000, 100_000_000),
    counted=10**9,
    columns=500,
    side=10_000,
    queried=20_000_000,
    pixels=(10**7, 10**8),
    segments=(10**5, 10**6, 10**7),
    folder=FOLDER,
)
QUICK = Scale(
    rows=(30_000,),
    text_rows=30_000,
    rounds=1,
    growing=(1_000, 10_000),
    counted=10**6,
    columns=20,
    side=300,
    queried=30_000,
    pixels=(10**4, 10**5),
    segments=(10**2, 10**3, 10**4),
    folder=FOLDER,
)
