"""What a copy did, as data."""

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["ColumnReport", "CopyReport", "printable", "size_text"]


@dataclass(frozen=True, slots=True)
class ColumnReport:
    """One copied column."""

    name: str
    """Name in the sidecar."""
    dtype: str
    """dtype in the sidecar."""
    gdal_type: str
    """GDAL's type, e.g. ``Integer``."""
    usage: str
    """GDAL's usage, e.g. ``PixelCount``."""


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What a copy did."""

    source: str
    """The raster or sidecar that was read."""
    target: str
    """The sidecar or raster that was written."""
    rows: int
    columns: tuple[ColumnReport, ...]
    bytes_read: int
    """Size of the values in memory, in bytes."""
    bytes_stored: int
    """Size of what was written, packed, in bytes."""
    seconds: float
    losses: tuple[str, ...] = field(default=())
    """In words, what the target's own storage could not hold as it was given."""
    notes: tuple[str, ...] = field(default=())
    """In words, what other software makes of the target's table, with no value lost."""
    values_there: int = 0
    """Of all columns together, what an interrupted copy had written before."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON would have it."""
        return asdict(self)

    def __str__(self) -> str:
        text = (
            f"{self.source} -> {self.target}: {len(self.columns)} columns of {self.rows} rows, "
            f"{size_text(self.bytes_read)} stored in {size_text(self.bytes_stored)}, {self.seconds:.2f} s"
        )
        if self.values_there:
            values = self.rows * len(self.columns)
            text += f"; {self.values_there} of {values} values were there already"
        return text


def printable(text: str) -> str:
    """Return text in which nothing can move a terminal's cursor, or colour it; lines stay."""
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def size_text(count: int) -> str:
    """Return a number of bytes, for reading."""
    size, units = float(count), ["bytes", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} bytes" if units[0] == "bytes" else f"{size:.1f} {units[0]}"
