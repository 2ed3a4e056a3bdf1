"""Expressions over columns, computed block by block by DuckDB.

No part of an expression is run as Python. DuckDB's parser reads it, and
:mod:`gdalbridge.sql.expression_syntax` checks its tree. A database in memory
(:class:`gdalbridge.sql.query.Database`) computes the checked tree; it cannot access files or the network, or load extensions. It uses one thread, so rows stay
in order.
"""

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from gdalbridge.errors import (
    BridgeError,
    ColumnSelectionError,
    ConversionError,
    NaNWarning,
)
from gdalbridge.sql.expression_syntax import (
    Node,
    Rewriter,
    arguments_of,
    as_type,
    function_of,
    one_expression,
    with_columns,
)
from gdalbridge.sql.query import Database, first_line, in_single_quotes, needed
from gdalbridge.sql.text_growth import bound, limit, slices

if TYPE_CHECKING:
    from gdalbridge.sql.arrow_values import Nulls

__all__ = ["SETTINGS", "Program"]

Array = NDArray[Any]

MEMORY = 10**9
RESULT_BYTES = 2**28
"""Limit of the long texts that functions make in one block."""
SETTINGS = {
    "error_on_division_by_zero": "true",
    "ieee_floating_point_ops": "true",
    "integer_division": "false",
    "threads": "1",
}
FIXES = {"HUGEINT": "BIGINT", "UHUGEINT": "UBIGINT"}
"""The types tried for results wider than 64 bits."""
BLOCK = "block"
"""The name of a block's table in queries."""


class Operand(Protocol):
    """A column that an expression uses."""

    @property
    def name(self) -> str:
        """Its name in expressions."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its dtype; each row has one value."""


class Operands[C: Operand](Protocol):
    """The columns that an expression may use, by name."""

    def __getitem__(self, name: str) -> C:
        """Return a column; raise a ColumnSelectionError for a missing one."""


class Program[C: Operand]:
    """Parsed and checked expressions, as a context manager.

    Parameters
    ----------
    expressions : mapping
        By name of the new column.
    there : Operands
        The columns that they may use, such as :class:`gdalbridge.sidecars.merged.Columns`.

    Attributes
    ----------
    columns : list of Operand
        The columns that they use.
    dtypes : dict
        The dtypes that store the results, by name.

    Raises
    ------
    BridgeError
        For an invalid expression, with the reason.
    ColumnSelectionError
        For a missing column; suggests similar names.
    """

    def __init__(self, expressions: Mapping[str, str], there: Operands[C]) -> None:
        self._duckdb = needed()
        self._there = there
        self._texts = dict(expressions)
        self._used: dict[str, str] = {}
        self._database = Database({}, memory=MEMORY, spills=False, settings=SETTINGS)
        self._connection = self._database.connection
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close()
        if kind is None:
            self.warn_of_nan()

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def warn_of_nan(self) -> None:
        """Warn about rows that were computed from NaN as a number greater than all others.

        Warns
        -----
        NaNWarning
            Once for an expression; for a condition, only if it is true for such rows.
        """
        for name, counts in self._nan_rows.items():
            rows = sum(counts.values())
            if rows:
                columns = self._ordered[name]
                many = f"{rows} rows have" if rows > 1 else "1 row has"
                true = self.dtypes[name].kind == "b"
                warnings.warn(
                    f"{many} NaN in {' or '.join(columns)}, and {self._texts[name]!r} "
                    f"{'is true for them' if true else 'compares it'}: NaN is greater than any "
                    f"number. Test for it with isnan({_quoted(columns[0])})",
                    NaNWarning,
                    stacklevel=4,
                )

    # ---- reading

    def _prepare(self) -> None:
        from gdalbridge.sql.arrow_values import DTYPES

        self._growing: list[tuple[str, Node]] = []
        self._ordered: dict[str, list[str]] = {}
        self._nan_rows: dict[str, dict[int, int]] = {}
        trees = [self._tree(name, text) for name, text in self._texts.items()]
        self.columns: list[C] = [self._there[name] for name in self._used]
        self._database.register(BLOCK, self._no_rows())
        types = self._types(trees)
        for place, kind in enumerate(types):
            if kind in FIXES:
                trees[place] = as_type(trees[place], FIXES[kind])
        self._query = self._select(trees)
        self._bounds = [(name, self._select([tree])) for name, tree in self._growing]
        self.dtypes: dict[str, np.dtype[Any]] = {}
        for (name, text), kind in zip(self._texts.items(), types, strict=True):
            dtype = DTYPES.get(FIXES.get(kind, kind))
            if dtype is None:
                raise ConversionError(
                    f"{text!r} has DuckDB's type {kind}, which no column can have: convert it "
                    "with CAST(... AS DOUBLE), VARCHAR, TIMESTAMP, ..."
                )
            self.dtypes[name] = dtype

    def _tree(self, output: str, text: Any) -> Node:
        if not isinstance(text, str) or not text.strip():
            raise BridgeError(f"an expression is text: got {text!r}")
        if any("\ud800" <= c <= "\udfff" for c in text):
            raise BridgeError(
                f"{text!r} can't be an expression: it contains an unpaired surrogate, which is "
                "not a Unicode character"
            )
        # The closing parenthesis goes on a new line, after any comment in the expression.
        [(answer,)] = self._ask("SELECT json_serialize_sql(?)", [f"SELECT ({text}\n)"])
        try:
            node = one_expression(json.loads(answer), text)
            names = _Names(self._there, self._used, text)
            rewriter = Rewriter(text, names.reference, self._kinds)
            plain = rewriter.expression(node)
            if names.single and names.integers:
                # As numpy does: DuckDB would convert an int64 to float32.
                names.widen = True
                rewriter = Rewriter(text, names.reference, self._kinds)
                plain = rewriter.expression(node)
            self._ordered[output] = [
                name
                for name in sorted(rewriter.ordered - rewriter.nan_tested)
                if self._there[name].dtype.kind == "f"
            ]
            for call in rewriter.growing:
                self._growing.append((function_of(call), self._bound_of(call, text)))
        except RecursionError:
            raise BridgeError(f"{text[:50]!r}...: the expression is nested too deeply") from None
        return plain

    def _bound_of(self, call: Node, text: str) -> Node:
        """Return the tree of an upper bound of a call's result, in bytes."""
        arguments = arguments_of(call)
        try:
            sql = bound(function_of(call), arguments, text)
        except IndexError:
            raise BridgeError(
                f"{text!r}: {function_of(call)}() of {len(arguments)} arguments"
            ) from None
        [(answer,)] = self._ask("SELECT json_serialize_sql(?)", [f"SELECT ({sql})"])
        tree: Node = with_columns(one_expression(json.loads(answer), sql), arguments)
        return tree

    def _kinds(self, function: str) -> set[str]:
        asked = "SELECT DISTINCT function_type FROM duckdb_functions() WHERE function_name = ?"
        return {kind for (kind,) in self._ask(asked, [function])}

    def _ask(self, query: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]]
        try:
            # Not in this thread, where DuckDB would make its own error of Ctrl-C.
            found = self._database.in_thread(
                lambda: self._connection.execute(query, list(values)).fetchall()
            )
        except self._duckdb.Error as error:
            raise BridgeError(f"DuckDB can't read the expressions: {error}") from error
        return found

    def _select(self, trees: Sequence[Node]) -> str:
        """Return the query that computes the expressions, in DuckDB's own words."""
        [(answer,)] = self._ask("SELECT json_serialize_sql(?)", ["SELECT 1 FROM block"])
        parsed = json.loads(answer)
        parsed["statements"][0]["node"]["select_list"] = [
            tree | {"alias": f"r{place}"} for place, tree in enumerate(trees)
        ]
        [(query,)] = self._ask("SELECT json_deserialize_sql(?::JSON)", [json.dumps(parsed)])
        return str(query)

    def _types(self, trees: Sequence[Node]) -> list[str]:
        try:
            query = self._select(trees)
            found = self._database.in_thread(lambda: self._connection.sql(query).types)
            return [str(kind) for kind in found]
        except self._duckdb.Error as error:
            texts = [f"{one.name!r}" for one in self.columns if one.dtype.kind == "T"]
            said = f"{self._named()}: {first_line(error)}"
            if texts:
                are = "is text" if len(texts) == 1 else "are text"
                said += (
                    f" Here {' and '.join(texts)} {are}: CAST(... AS DOUBLE) makes numbers of text"
                )
            raise BridgeError(said) from error

    def _named(self) -> str:
        return " and ".join(map(repr, self._texts.values()))

    # ---- computing

    def _no_rows(self) -> Any:
        from gdalbridge.sql.arrow_values import empty_array

        return self._block([empty_array(c.dtype, column=c.name) for c in self.columns], 0)

    def _block(self, arrays: Sequence[Any], rows: int) -> Any:
        import pyarrow as pa

        named = dict(zip(self._used.values(), arrays, strict=True))
        # An expression without columns also needs a value for each row.
        return pa.table(named if named else {"n": pa.array(np.zeros(rows, np.int8))})

    def compute(
        self,
        arrays: Sequence[Any],
        first_row: int,
        rows: int,
        nulls: "Mapping[str, Nulls] | None" = None,
    ) -> dict[str, Array]:
        """Return a block of each result.

        Parameters
        ----------
        arrays : sequence of pyarrow.Array
            A block of each of :attr:`columns`.
        first_row, rows : int
            First row and length of the block.
        nulls : mapping, optional
            What stands for NULL in the stored columns, by name.

        Raises
        ------
        ConversionError
            If an integer overflows, a text is not a number, or a result is NULL and the dtype
            cannot hold it; names the row.
        """
        from gdalbridge.sql.arrow_values import from_arrow

        found = self._results(arrays, first_row, rows)
        self._count_nan(arrays, found, first_row)
        return {
            name: from_arrow(
                _whole(found.column(place)),
                dtype,
                column=name,
                first_row=first_row,
                nulls=(nulls or {}).get(name),
            )
            for place, (name, dtype) in enumerate(self.dtypes.items())
        }

    def true_rows(self, arrays: Sequence[Any], first_row: int, rows: int) -> Array:
        """Return a block of the first result, which is true or false; NULL counts as false.

        Parameters and errors are those of :meth:`compute`.
        """
        results = self._results(arrays, first_row, rows)
        self._count_nan(arrays, results, first_row)
        found = _whole(results.column(0))
        mask: Array = found.fill_null(False).to_numpy(zero_copy_only=False)
        return mask

    def _count_nan(self, arrays: Sequence[Any], results: Any, first_row: int) -> None:
        """Count the rows of a block with NaN in columns that an expression orders."""
        import pyarrow.compute as pc

        by_name = dict(zip((one.name for one in self.columns), arrays, strict=True))
        for place, (name, columns) in enumerate(self._ordered.items()):
            masks = [pc.is_nan(by_name[column]).fill_null(False) for column in columns]
            if not masks:
                continue
            found = masks[0]
            for mask in masks[1:]:
                found = pc.or_(found, mask)
            if self.dtypes[name].kind == "b":
                found = pc.and_(found, _whole(results.column(place)).fill_null(False))
            # A block may be computed again: its number replaces the earlier one.
            self._nan_rows.setdefault(name, {})[first_row] = pc.sum(found).as_py() or 0

    def _results(self, arrays: Sequence[Any], first_row: int, rows: int) -> Any:
        block = self._block(arrays, rows)
        found = self._sliced(block, self._query, self._weights(block, first_row), first_row)
        if found.num_rows != rows:
            raise BridgeError(f"{self._named()}: {found.num_rows} results of {rows} rows")
        return found

    def _weights(self, block: Any, first_row: int) -> Array:
        """Return upper bounds of the bytes of text that each row makes.

        Raises
        ------
        ConversionError
            If one text would be too long; names the row.
        """
        weights = np.zeros(block.num_rows)
        for name, query in self._bounds:
            found = self._sliced(block, query, weights, first_row).column(0)
            each = np.nan_to_num(found.to_numpy(), nan=0.0)
            long = each > limit(name)
            if long.any():
                row = int(np.argmax(long))
                raise ConversionError(
                    f"{self._named()}, row {first_row + row}: {name}() may take up to {each[row]:.3g} "
                    f"bytes, and {limit(name)} are allowed for one value"
                )
            weights += each
        return weights

    def _sliced(self, block: Any, query: str, weights: Array, first_row: int) -> Any:
        """Run a query over a block, with as many rows at a time as memory allows."""
        import pyarrow as pa

        found, size = [], 0
        cuts = slices(weights)
        for cut in cuts:
            part = block.slice(cut.start, cut.stop - cut.start)
            try:
                found.append(self._run(part, query))
            except self._duckdb.Error as error:
                raise self._explained(part, query, first_row + cut.start, error) from error
            size += found[-1].nbytes
            if len(cuts) > 1 and size > RESULT_BYTES:
                raise ConversionError(
                    f"{self._named()}, rows {first_row} to {first_row + cut.stop - 1}: the "
                    f"results take more than {RESULT_BYTES} bytes, the limit for a block"
                )
        return found[0] if len(found) == 1 else pa.concat_tables(found)

    def _run(self, block: Any, query: str) -> Any:
        self._database.register(BLOCK, block)
        return self._database.in_thread(lambda: self._connection.sql(query).to_arrow_table())

    def _explained(
        self, block: Any, query: str, first_row: int, error: Exception
    ) -> ConversionError:
        """Find the first failing row, because DuckDB reports only that a block failed."""
        low, high = 0, block.num_rows
        while high - low > 1:
            middle = (low + high) // 2
            try:
                self._run(block.slice(low, middle - low), query)
            except self._duckdb.Error:
                high = middle
            else:
                low = middle
        try:
            self._run(block.slice(low, high - low), query)
        except self._duckdb.Error as one:
            return ConversionError(f"{self._named()}, row {first_row + low}: {self._said(one)}")
        return ConversionError(f"{self._named()}, from row {first_row}: {self._said(error)}")

    def _said(self, error: Exception) -> str:
        """Return DuckDB's message with the user's names, and without advice that can't be followed."""
        names = {ours: name for name, ours in self._used.items()}
        said = re.sub(r"\bc\d+\b", lambda found: names.get(found[0], found[0]), first_line(error))
        return re.sub(
            r"Use TRY.*error_on_division_by_zero.*",
            "For a result of NULL instead, write the divisor as nullif(..., 0).",
            said,
        )


class _Names:
    """Our names for an expression's columns, because DuckDB's names are not case-sensitive."""

    def __init__(self, there: Operands[Any], used: dict[str, str], text: str) -> None:
        self._there, self._used, self._text = there, used, text
        self.widen = False
        self.single = self.integers = False
        """True if the expression uses floats narrower than 64 bits, and integers."""

    def reference(self, name: str) -> Node:
        """Return the SQL for a column in DuckDB's query."""
        try:
            dtype = self._there[name].dtype
        except ColumnSelectionError as error:
            if f'"{name}"' in self._text:
                raise ColumnSelectionError(f"{error} {in_single_quotes(name)}") from None
            raise
        small = dtype.kind == "f" and dtype.itemsize < 8
        self.single |= small
        self.integers |= dtype.kind in "iu"
        ours = self._used.setdefault(name, f"c{len(self._used)}")
        node: Node = {
            "class": "COLUMN_REF", "type": "COLUMN_REF", "alias": "", "query_location": 0,
            "query_location_length": 0, "column_names": [ours],
        }  # fmt: skip
        return as_type(node, "DOUBLE") if small and self.widen else node


def _quoted(name: str) -> str:
    """Return a column's name as an expression has it."""
    return name if name.isidentifier() else '"' + name.replace('"', '""') + '"'


def _whole(column: Any) -> Any:
    """Return an array without chunks."""
    if column.num_chunks == 1:
        return column.chunk(0)
    whole = column.combine_chunks()
    return whole.chunk(0) if hasattr(whole, "num_chunks") and whole.num_chunks else whole
