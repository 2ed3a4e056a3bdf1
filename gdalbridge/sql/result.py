"""The rows of a query as text, CSV and JSON.

Integers keep all digits. NULL and NaN stay different: in a table they are ``NULL`` and ``nan``, in
CSV an empty cell and ``nan`` (text is quoted, so an empty text is ``""``), in JSON ``null`` and
``"nan"``.
"""

import io
import json
import re
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from typing import Any

from gdalbridge.errors import BridgeError
from gdalbridge.sql.query import Database, quoted
from gdalbridge.text_table import json_value, plain_text

__all__ = ["csv_text", "distinct", "json_text", "python_values", "table_text"]

SHOWN_ROWS = 40
"""Rows of a table as text; half of them are the first ones, half the last ones."""
WIDEST = 10_000
"""Width of a table as text that does not go to a terminal."""
WIDE = re.compile(r"\bU?HUGEINT\b|^BIGNUM$")
"""Types that Arrow lacks. :data:`DIGITS` holds their values, or DuckDB raises an error."""
DIGITS = "DECIMAL(38, 0)"
PLAIN = re.compile(
    r"BOOLEAN|VARCHAR|FLOAT|DOUBLE|DATE|TIMESTAMP.*|DECIMAL.*|\"NULL\"|U?(TINY|SMALL|BIG)INT|U?INTEGER"
)
"""The types that CSV and JSON have."""


def table_text(database: Database, relation: Any, width: int | None = None) -> str:
    """Return the first and last rows as a table with the columns' types.

    Parameters
    ----------
    database : Database
    relation : duckdb.DuckDBPyRelation
        One of the database's.
    width : int, optional
        Width of a line. Columns that don't fit are left out, and the last line counts them.
    """

    def show() -> str:
        text = io.StringIO()
        with redirect_stdout(text):
            relation.show(max_width=width or WIDEST, max_rows=SHOWN_ROWS, null_value="NULL")
        return "\n".join(map(plain_text, text.getvalue().rstrip("\n").split("\n")))

    return database.run(show)


def csv_text(database: Database, relation: Any) -> Iterator[str]:
    """Yield pieces of CSV, with the names of the columns in the first line."""
    import pyarrow as pa
    import pyarrow.csv

    schema, batches = database.batches(database.run(lambda: _as_csv(relation)))
    head = io.BytesIO()
    pa.csv.write_csv(schema.empty_table(), head)
    yield head.getvalue().decode()
    bare = pa.csv.WriteOptions(include_header=False)
    for batch in batches:
        text = io.BytesIO()
        pa.csv.write_csv(batch, text, bare)
        yield text.getvalue().decode()


def json_text(database: Database, relation: Any) -> Iterator[str]:
    """Yield pieces of a JSON array with an object for each row.

    Raises
    ------
    BridgeError
        If two columns have the same name.
    """
    schema, batches = database.batches(database.run(lambda: _as_json(relation)))
    names = distinct(schema.names)
    between = "[\n"
    for batch in batches:
        columns = [json_value(python_values(column)) for column in batch.columns]
        rows = (
            json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False)
            for row in zip(*columns, strict=True)
        )
        text = ",\n".join(rows)
        if text:
            yield f"{between}{text}"
            between = ",\n"
    yield "[]\n" if between == "[\n" else "\n]\n"


# ---- values


def _projected(relation: Any, expression: Callable[[str, str], str]) -> Any:
    """Return a relation with each column replaced by SQL of its place's name and its type."""
    places = [f"c{place}" for place in range(len(relation.columns))]
    chosen = [
        f"{expression(place, str(kind))} AS {quoted(name)}"
        for place, name, kind in zip(places, relation.columns, relation.types, strict=True)
    ]
    return relation.query(
        "result",
        f"SELECT {', '.join(chosen)} FROM (FROM result) AS numbered({', '.join(places)})",  # noqa: S608 - our own SQL
    )


def exact(relation: Any) -> Any:
    """Return a relation whose integers Arrow keeps exactly.

    Those of 128 bits with more than 38 digits are an error; those of any size become text.
    """

    def expression(name: str, kind: str) -> str:
        target = "VARCHAR" if kind == "BIGNUM" else WIDE.sub(DIGITS, kind)
        return name if target == kind else f"CAST({name} AS {target})"

    if not any(WIDE.search(str(kind)) for kind in relation.types):
        return relation
    return _projected(relation, expression)


def _as_json(relation: Any) -> Any:
    """Return a relation with types that JSON has, or bytes; others are text."""

    def expression(name: str, kind: str) -> str:
        nested = kind.endswith("]") or kind.startswith(("STRUCT", "MAP"))
        kept = nested or kind == "BLOB" or PLAIN.fullmatch(kind)
        return name if kept else f"CAST({name} AS VARCHAR)"

    return _projected(exact(relation), expression)


def _as_csv(relation: Any) -> Any:
    """Return a relation with the types that CSV has; others are text, bytes in hexadecimal."""

    def expression(name: str, kind: str) -> str:
        if kind == "BLOB":
            return f"lower(hex({name}))"
        kept = PLAIN.fullmatch(kind) and not kind.endswith("]")
        return name if kept else f"CAST({name} AS VARCHAR)"

    return _projected(exact(relation), expression)


def distinct(names: list[str]) -> list[str]:
    """Return names, if no two are equal.

    Raises
    ------
    BridgeError
        If two are.
    """
    for place, name in enumerate(names):
        if name in names[:place]:
            raise BridgeError(
                f"two columns of the result are called {name!r}: give one another name, with AS"
            )
    return names


def python_values(column: Any) -> list[Any]:
    """Return the values of an Arrow array: numbers with the digits that they are stored with."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_float32(kind):
        # The shortest digits of the float32; as a float64 it would have more.
        texts = column.cast(pa.string()).to_pylist()
        return [None if text is None else float(text) for text in texts]
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        # Python's date-times have no nanoseconds.
        texts = column.cast(pa.string()).to_pylist()
        return [None if text is None else text.replace(" ", "T") for text in texts]
    found: list[Any] = column.to_pylist()
    return found
