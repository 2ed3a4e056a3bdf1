"""Columns of a table counted in classes and bins by DuckDB, for plots.

A column is never loaded: each function returns as many numbers as a picture has.
"""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError, ConversionError
from gdalbridge.gdalio.field_types import FieldUsage
from gdalbridge.sql.query import Database
from ratzarr import RatZarrError
from ratzarr.interop import TableMethods

__all__ = ["Axis", "Classes", "Counts", "DrawnColumn", "count_text", "shown_text"]

Array = NDArray[Any]

TOP = 20
"""A column of integers with at most this many distinct values is drawn as classes."""
NAME_CHARACTERS = 34
EDGE_STEPS = 16
"""Minimum width of a bin of large integers, in steps between neighbouring floats."""
MAX_NUMBER = 1e300
"""The largest number on an axis, because matplotlib adds numbers of an axis up."""
USAGES = {
    FieldUsage.RED: "red", FieldUsage.GREEN: "green", FieldUsage.BLUE: "blue",
    FieldUsage.ALPHA: "alpha",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class DrawnColumn:
    """A column of a plot, and how queries write it."""

    name: str
    sql: str
    type: Any
    """Its Arrow type."""
    attributes: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """number, integer, time or class."""
        import pyarrow as pa

        kinds = pa.types
        if kinds.is_floating(self.type):
            return "number"
        if kinds.is_integer(self.type):
            return "class" if self.attributes.get("GDAL_USAGE") == FieldUsage.NAME else "integer"
        return "time" if kinds.is_temporal(self.type) else "class"

    @property
    def value(self) -> str:
        """SQL for the number on an axis; null where it can't be drawn."""
        if self.kind == "number":
            return f"CASE WHEN isfinite({self.sql}) THEN {self.sql}::DOUBLE END"
        if self.kind == "time":
            return f"epoch_us({self.sql}::TIMESTAMP)::HUGEINT"
        return f"{self.sql}::HUGEINT"

    @property
    def label(self) -> str:
        """The name with the units."""
        units = self.attributes.get("units")
        shown = shown_text(self.name)
        return f"{shown} [{shown_text(units)}]" if isinstance(units, str) and units else shown


@dataclass(slots=True)
class Classes:
    """The most frequent values of a column."""

    column: DrawnColumn
    values: list[Any] = field(default_factory=list)
    counts: list[Any] = field(default_factory=list)
    """Number of rows of each value, or the sum of their weights."""
    colours: list[tuple[float, ...] | None] = field(default_factory=list)
    """The table's colour of each value; None if it has none, or several."""
    others: int = 0
    """Number of further values, which are drawn together."""
    other_count: Any = 0

    @property
    def names(self) -> list[str]:
        """Texts of the classes, with the others as the last one."""
        names = _distinct_texts(self.values)
        return [*names, f"{count_text(self.others, 'other class', 'other classes')}"][
            : len(names) + bool(self.others)
        ]

    @property
    def note(self) -> str:
        """The note that not all classes are drawn."""
        every = len(self.values) + self.others
        return f"the {len(self.values)} most frequent of {every:,} classes, and the others"

    def fewer(self, number: int) -> "Classes":
        """Return the most frequent classes only, and the others together."""
        order = sorted(range(len(self.values)), key=lambda place: -self.counts[place])
        kept = sorted(order[:number])
        return Classes(
            self.column,
            [self.values[place] for place in kept],
            [self.counts[place] for place in kept],
            [self.colours[place] for place in kept],
            self.others + len(self.values) - len(kept),
            self.other_count + sum(self.counts[place] for place in order[number:]),
        )

    def numbered(self, to: str = "rat", number: str = "k") -> str:
        """Return SQL for the rows that have a class, with the class's number."""
        # Not a join: DuckDB might put the large table into memory for it.
        values = ", ".join(map(_literal, self.values))
        sql = self.column.sql
        return (
            f"(SELECT rat.*, coalesce(list_position([{values}], {sql}) - 1, {len(self.values)}) "  # noqa: S608 - our own SQL
            f"AS {number} FROM {to} AS rat WHERE {sql} IS NOT NULL) AS rat"
        )


@dataclass(frozen=True, slots=True)
class Axis:
    """The bins of an axis."""

    edges: Array
    """Edges of the bins, in the unit of the plot: date-times as matplotlib's days."""
    sql: str
    """SQL for the number of a value's bin."""
    inside: str
    """SQL that is true for values in a bin."""

    @property
    def number(self) -> int:
        """The number of bins."""
        return len(self.edges) - 1


class Counts:
    """Counts of a table's rows, or sums of their weights.

    In queries, the table is called ``rat`` and its columns ``c0``, ``c1``, ...

    Parameters
    ----------
    table : TableMethods
    place : str
        The raster or the store, for messages.
    names : sequence of str
        The columns to draw; ``name[0]`` for one of several values per row.
    weights : str, bool or None
        The column whose sum is counted in place of rows; True for the usage PixelCount.

    Attributes
    ----------
    notes : list of str
        What the counts leave out, for the title.
    """

    def __init__(
        self, table: TableMethods, place: str, names: Sequence[str],
        weights: str | bool | None = None,
    ) -> None:  # fmt: skip
        self.place, self._table = place, table
        self.notes: list[str] = []
        if not len(table):
            raise BridgeError(f"{place} has no rows, so column {names[0]!r} can't be drawn")
        self.weight_name = _weight_name(table, weights)
        self._colours = _colour_columns(table)
        names = [*names, *self._colours.values()]
        if self.weight_name is not None:
            names.append(self.weight_name)
        own = [self._split(name)[0] for name in names]
        self._renamed = {name: f"c{place}" for place, name in enumerate(dict.fromkeys(own))}
        self._scan = table.scan(list(self._renamed), rename=self._renamed)

    def _split(self, name: str) -> tuple[str, int | None]:
        """Return the column's name, and the number of the value for a name as ``ndvi[2]``."""
        whole, bracket, rest = name.rpartition("[")
        if name in self._table or not bracket or whole not in self._table:
            return name, None
        part = rest.removesuffix("]")
        return (whole, int(part)) if rest.endswith("]") and part.isdecimal() else (name, None)

    def column(self, name: str) -> DrawnColumn:
        """Return a column.

        Raises
        ------
        ConversionError
            If it can't be drawn.
        """
        import pyarrow as pa

        whole, part = self._split(name)
        found = self._scan.schema.field(self._renamed[whole])
        kind, sql = found.type, self._renamed[whole]
        if pa.types.is_fixed_size_list(kind):
            if part is None or part >= kind.list_size:
                raise ConversionError(
                    f"column {name!r} of {self.place} has {kind.list_size} values per row; draw one "
                    f"of them, such as {whole + '[0]'!r}"
                )
            kind, sql = kind.value_type, f"{sql}[{part + 1}]"
        if pa.types.is_binary(kind) and self._table[whole].dtype.kind == "O":
            raise ConversionError(
                f"column {name!r} of {self.place} has bytes, which can't be drawn"
            )
        return DrawnColumn(name, sql, kind, _attributes(found))

    def run(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query over ``rat``."""
        with Database({"rat": self._scan}) as database:
            found: list[tuple[Any, ...]] = database.run(database.relation(query).fetchall)
        return found

    @property
    def weight(self) -> str:
        """SQL for the count of rows, or the sum of their weights."""
        if self.weight_name is None:
            return "count(*)"
        return f"coalesce(sum({self.column(self.weight_name).sql}), 0)"

    def check_weights(self) -> None:
        """Raise a ConversionError unless the weights are numbers from 0."""
        if self.weight_name is None:
            return
        weight = self.column(self.weight_name)
        if weight.kind not in ("integer", "number"):
            raise ConversionError(f"column {weight.name!r} has no counts to weigh by")
        [(low, high)] = self.run(f"SELECT min({weight.sql}), max({weight.sql}) FROM rat")  # noqa: S608 - our own SQL
        if low is None or low < 0 or not math.isfinite(high):
            raise ConversionError(
                f"weights are numbers from 0: column {weight.name!r} has values from {low} to {high}"
            )

    def classes(self, column: DrawnColumn, top: int) -> Classes | None:
        """Return a column's classes; None if its values are drawn as numbers."""
        if column.kind in ("number", "time"):
            return None
        if column.kind == "integer":
            [(distinct,)] = self.run(f"SELECT approx_count_distinct({column.sql}) FROM rat")  # noqa: S608 - our own SQL
            if distinct > 2 * TOP:
                return None
        sql = column.sql
        extremes = "".join(
            f", min({one}), max({one})"
            for one in (self.column(name).sql for name in self._colours.values())
        )
        found = self.run(
            f"SELECT {sql} AS v, {self.weight} AS w, count(*) AS rows, count(*) OVER (), "  # noqa: S608 - our own SQL
            f"sum(w) OVER (), sum(rows) OVER () {extremes} FROM rat WHERE {sql} IS NOT NULL "
            f"GROUP BY v ORDER BY w DESC, v LIMIT {max(top, TOP + 1)}"
        )
        if not found:
            raise self.nothing(column, "all are missing")
        if column.kind == "integer" and found[0][3] > TOP:
            return None
        total, weight, rows = found[0][3:6]
        self._left_out(self.rows() - int(rows), f"without a {shown_text(column.name)}")
        found = found[:top]
        if column.kind == "integer" or isinstance(found[0][0], bool):
            found.sort(key=lambda row: row[0])
        shown = sum(row[1] for row in found)
        return Classes(
            column,
            [row[0] for row in found],
            [row[1] for row in found],
            [_colour(dict(zip(self._colours, _pairs(row[6:]), strict=True))) for row in found],
            total - len(found),
            weight - shown,
        )

    def rows(self, where: str | None = None) -> int:
        """Return the number of rows for which a condition is true, by default of all rows."""
        if where is None:
            return int(self._scan.count_rows())
        [(rows,)] = self.run(f"SELECT count(*) FROM rat WHERE {where}")  # noqa: S608 - our own SQL
        return int(rows)

    def nothing(self, column: DrawnColumn, why: str) -> BridgeError:
        """Return the error for a column without a value to draw."""
        return BridgeError(f"column {column.name!r} of {self.place} has no value to draw: {why}")

    def _left_out(self, rows: int, why: str) -> None:
        if rows:
            self.notes.append(f"{count_text(rows, 'row')} {why} left out")

    def limits(self, column: DrawnColumn) -> tuple[Any, Any]:
        """Return the smallest and the largest value that can be drawn; note what can't."""
        sql, value = column.sql, column.value
        strange = "isnan({0}), isinf({0})" if column.kind == "number" else "false, false"
        nan, infinite = strange.format(sql).split(", ")
        [(low, high, null, nans, infinities)] = self.run(
            f"SELECT min({value}), max({value}), count(*) - count({sql}), "  # noqa: S608 - our own SQL
            f"count(*) FILTER ({nan}), count(*) FILTER ({infinite}) FROM rat"
        )
        reasons = {"missing": null, "NaN": nans, "infinite": infinities}
        if low is None:
            why = ", ".join(f"{number:,} {kind}" for kind, number in reasons.items() if number)
            raise self.nothing(column, why)
        of = f" {shown_text(column.name)}"
        for kind, number in reasons.items():
            self._left_out(number, f"with {kind}{of}")
        if column.kind == "time":
            edge = np.array([int(low), int(high)], "M8[us]").astype("M8[Y]").astype(int) + 1970
            if edge[0] < 1 or edge[1] > 9999:
                raise ConversionError(
                    f"column {column.name!r}: date-times from year {edge[0]} to {edge[1]} can't be "
                    "drawn, only years 1 to 9999"
                )
        return low, high

    def axis(
        self, column: DrawnColumn, number: int, limits: tuple[Any, Any] | None = None
    ) -> Axis:
        """Return bins for a column."""
        low, high = self.limits(column)
        value = column.value
        if limits is not None:
            if column.kind == "time":
                raise BridgeError(
                    f"column {column.name!r} has date-times, and the edges in bins are numbers: give "
                    "the number of bins alone"
                )
            low, high = limits
            if column.kind == "integer":
                low, high = math.ceil(low), math.floor(high)
                if low > high:
                    raise self.nothing(column, "no value is in the bins")
        if column.kind == "number":
            if low == high:
                pad = max(0.5, abs(low) * 1e-6)
                low, high = low - pad, high + pad
            if max(-low, high) > MAX_NUMBER:
                raise ConversionError(
                    f"column {column.name!r}: numbers from {low:g} to {high:g} can't be drawn; choose "
                    "edges, with bins=(number, first edge, last edge)"
                )
            width = (high - low) / number
            sql = f"least(floor(({value} - {low!r}::DOUBLE) / {width!r}::DOUBLE), {number - 1})"
            edges = np.linspace(low, high, number + 1)
            inside = f"{value} BETWEEN {low!r}::DOUBLE AND {high!r}::DOUBLE"
            return Axis(edges, sql, inside)
        low, high = int(low), int(high)
        # Bins of as many whole numbers each, or the picture shows stripes that the values lack.
        # Floats near 2**63 are 1024 apart, and matplotlib can't draw bins of a few of them.
        least = EDGE_STEPS * math.ceil(math.ulp(max(-low, high)) - 0.5)
        width = max(-(-(high - low + 1) // number), least)
        places = [low + width * k for k in range(-(-(high - low + 1) // width) + 1)]
        inside = f"{value} BETWEEN {low} AND {high}"
        sql = f"({value} - ({low})) // {width}"
        if column.kind == "time":
            return Axis(np.array(places, "M8[us]"), sql, inside)
        return Axis(np.array(places, np.float64) - 0.5, sql, inside)


def _weight_name(table: TableMethods, weights: str | bool | None) -> str | None:
    if weights is None or weights is False:
        return None
    if isinstance(weights, str):
        return weights
    for name in table.columns:
        with suppress(RatZarrError):
            if _attributes(table.scan([name]).schema.field(0)).get("GDAL_USAGE") == 1:
                return name
    raise BridgeError(
        "no column has the usage PixelCount: give the name of the column with the weights"
    )


def _attributes(found: Any) -> dict[str, Any]:
    """Return the attributes of a field of an Arrow schema."""
    attributes = {}
    for key, text in (found.metadata or {}).items():
        value = text.decode()
        with suppress(ValueError):
            value = json.loads(value) if key != b"units" else value
        attributes[key.decode()] = value
    return attributes


def _colour_columns(table: TableMethods) -> dict[str, str]:
    """Return the columns with the usages Red, Green, Blue and Alpha; none without all colours."""
    found: dict[str, str] = {}
    for name in table.columns:
        try:
            schema = table.scan([name]).schema
        except RatZarrError:
            continue
        usage = _attributes(schema.field(0)).get("GDAL_USAGE")
        if usage in USAGES:
            found.setdefault(USAGES[FieldUsage(usage)], name)
    return found if {"red", "green", "blue"} <= found.keys() else {}


def _pairs(values: Sequence[Any]) -> list[tuple[Any, Any]]:
    return list(zip(values[::2], values[1::2], strict=True))


def _colour(extremes: Mapping[str, tuple[Any, Any]]) -> tuple[float, ...] | None:
    """Return a class's colour, given the smallest and largest value of each component.

    None if they differ, because the class then has several colours.
    """
    if any(low is None or low != high or not 0 <= low <= 255 for low, high in extremes.values()):
        return None
    parts = [part for part in USAGES.values() if part in extremes]
    return tuple(float(extremes[part][0]) / 255 for part in parts) or None


def shown_text(text: Any, limit: int = NAME_CHARACTERS) -> str:
    """Return text in one line that matplotlib does not take for a formula."""
    line = "".join(c if c.isprintable() else " " for c in str(text))
    line = line if len(line) <= limit else f"{line[: limit - 1]}…"
    return line.replace("$", r"\$")


def _class_text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, bool):
        return str(value).lower()
    if not str(value).strip():
        return shown_text(repr(value)) if value else "(empty)"
    return shown_text(value)


def _distinct_texts(values: Sequence[Any]) -> list[str]:
    """Return class names; those that are equal after cutting show their end, too."""
    texts = [_class_text(value) for value in values]
    half = NAME_CHARACTERS // 2
    return [
        text
        if texts.count(text) == 1 or len(str(value)) <= NAME_CHARACTERS
        else shown_text(f"{str(value)[: half - 1]}…{str(value)[-half:]}")
        for text, value in zip(texts, values, strict=True)
    ]


def _literal(value: Any) -> str:
    r"""Return a class as SQL.

    >>> print(_literal("it's"), _literal(7), _literal(b"a"))
    'it''s' 7 '\x61'::BLOB
    """
    if isinstance(value, bytes):
        return "'" + "".join(f"\\x{byte:02x}" for byte in value) + "'::BLOB"
    if isinstance(value, str):
        # SQL has no zero character in a text.
        return " || chr(0) || ".join(
            "'" + part.replace("'", "''") + "'" for part in value.split("\0")
        )
    return str(value)


def count_text(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun.

    >>> count_text(1, "row"), count_text(1200, "class", "classes")
    ('1 row', '1,200 classes')
    """
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
