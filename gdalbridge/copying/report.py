"""Reports of what a function has done, and of a copy."""

from dataclasses import asdict, dataclass, field
from typing import Any, Self

from gdalbridge.gdalio.field_types import type_name, usage_name

__all__ = ["ColumnReport", "CopyReport", "Report", "size_text"]


@dataclass(frozen=True, slots=True)
class Report:
    """What a function has done; it prints as text."""

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON-compatible values."""
        return asdict(self)


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

    @classmethod
    def of(cls, name: str, dtype: Any, kind: int, usage: int) -> Self:
        """Return the report of a column, from its dtype and GDAL's numbers."""
        shown = "str" if dtype.kind == "T" else str(dtype)
        return cls(name, shown, type_name(kind), usage_name(usage))


@dataclass(frozen=True, slots=True)
class CopyReport(Report):
    """The result of a copy."""

    source: str
    """The raster or sidecar that was read."""
    target: str
    """The sidecar or raster that was written."""
    rows: int
    columns: tuple[ColumnReport, ...]
    bytes_read: int
    """Size of the values in memory, in bytes."""
    bytes_stored: int
    """Size of the written data on disk, in bytes."""
    seconds: float
    losses: tuple[str, ...] = field(default=())
    """Descriptions of values that the target could not store unchanged."""
    notes: tuple[str, ...] = field(default=())
    """Descriptions of other software's view of the target's table, without loss of values."""
    values_there: int = 0
    """Number of values over all columns that an interrupted copy had written before."""

    def __str__(self) -> str:
        text = (
            f"{self.source} -> {self.target}: {len(self.columns)} columns of {self.rows} rows, "
            f"{size_text(self.bytes_read)} stored in {size_text(self.bytes_stored)}, {self.seconds:.2f} s"
        )
        if self.values_there:
            values = self.rows * len(self.columns)
            text += f"; {self.values_there} of {values} values were there already"
        return text


def size_text(count: int) -> str:
    """Return a number of bytes as readable text."""
    size, units = float(count), ["bytes", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} bytes" if units[0] == "bytes" else f"{size:.1f} {units[0]}"
