"""What a run of a script did, and where its time went."""

from dataclasses import asdict, dataclass
from html import escape
from typing import Any

__all__ = ["ApplyReport"]


@dataclass(frozen=True, slots=True)
class ApplyReport:
    """What :func:`~gdalbridge.ratapplier.apply` did.

    >>> print(ApplyReport(5000, 50, 0, ("seg.tif.rat.zarr",), "serial", 1, 2.0, 0.1, 1.5, 0.3))
    5000 rows in 50 blocks, 2.00 s (serial)
    waiting for reads    0.10 s
    computing            1.50 s
    waiting for writes   0.30 s
    written: seg.tif.rat.zarr
    """

    rows: int
    """Rows that were worked through."""
    blocks: int
    """Blocks they are, with those of before."""
    blocks_there: int
    """Of them, what an interrupted run had done before."""
    written: tuple[str, ...]
    """Tables that were written to."""
    executor: str
    workers: int
    seconds: float
    """From beginning to end."""
    reading: float
    """Seconds in which a block waited for its columns; of all workers together."""
    computing: float
    """Seconds in the function, of all workers together."""
    writing: float
    """Seconds in which work waited for blocks to be written."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON would have it."""
        return asdict(self)

    def formatReport(self) -> str:
        """Return it as text."""
        workers = f", {self.workers} workers" if self.workers > 1 else ""
        how = f"{self.executor}{workers}"
        lines = [f"{self.rows} rows in {self.blocks} blocks, {self.seconds:.2f} s ({how})"]
        if self.blocks_there:
            lines[0] += f"; {self.blocks_there} of the blocks were done before"
        for what, seconds in self._times():
            lines.append(f"{what:<20} {seconds:.2f} s")
        lines += [f"written: {name}" for name in self.written]
        return "\n".join(lines)

    def _times(self) -> list[tuple[str, float]]:
        return [
            ("waiting for reads", self.reading),
            ("computing", self.computing),
            ("waiting for writes", self.writing),
        ]

    def __str__(self) -> str:
        return self.formatReport()

    def _repr_html_(self) -> str:
        head, *rest = self.formatReport().splitlines()
        rows = "".join(
            f"<tr><td style='text-align:left'>{what}</td><td>{seconds:.2f} s</td></tr>"
            for what, seconds in self._times()
        )
        written = "".join(f"<div>{escape(line)}</div>" for line in rest[3:])
        return f"<div>{escape(head)}</div><table>{rows}</table>{written}"
