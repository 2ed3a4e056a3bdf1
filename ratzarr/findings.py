"""What a look at a whole store finds: one line each, for people and for programs."""

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["NOTES", "Finding", "Kind"]

Kind = Literal[
    "damaged",
    "missing",
    "unreadable",
    "link",
    "stale",
    "unfinished",
    "resize",
    "row-count",
    "leftover",
    "dtype",
    "raster",
    "order",
    "unchecked",
    "foreign",
]

NOTES: frozenset[str] = frozenset({"order", "unchecked", "foreign"})
"""Kinds that are worth a word, and with which nothing is wrong."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found in a store."""

    kind: Kind
    """What it is: docs/checking.md lists them."""
    key: str
    """The object, by its key in the store; where it is several, the first, or their prefix."""
    words: str
    """What is wrong with it."""
    column: str | None = None
    """The column that it belongs to."""
    rows: tuple[int, int] | None = None
    """The table's rows that are concerned: first, and the one after the last."""
    repair: str | None = None
    """What a repair does about it; None where it does nothing."""
    repaired: bool = False
    """Whether that was done."""

    @property
    def wrong(self) -> bool:
        """Whether something is wrong; otherwise it is a note."""
        return self.kind not in NOTES

    def __str__(self) -> str:
        place = [self.key] if self.key else []
        if self.column is not None:
            place.append(f"column {self.column!r}")
        if self.rows is not None:
            first, stop = self.rows
            place.append(f"row {first}" if stop - first == 1 else f"rows {first} to {stop - 1}")
        return f"{', '.join(place)}: {self.words}" if place else self.words

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "kind": self.kind,
            "wrong": self.wrong,
            "object": self.key,
            "column": self.column,
            "rows": None if self.rows is None else list(self.rows),
            "words": self.words,
            "repair": self.repair,
            "repaired": self.repaired,
        }
