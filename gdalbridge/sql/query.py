"""Queries over tables in DuckDB's SQL, without access to files, the network or Python's variables."""

import atexit
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from functools import cache
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from gdalbridge.errors import BridgeError, PackageMissingError
from ratzarr.interop import TableMethods
from ratzarr.stores import temporary_path

__all__ = ["Database", "first_line", "in_single_quotes", "needed", "quoted", "relation"]

MEMORY = 2 * 10**9
"""Bytes that DuckDB uses before it spills to disk."""
BATCH_ROWS = 100_000
"""Rows of a result that are handled at a time."""
SECONDS = 0.1
"""Seconds between progress reports."""

LOCKED = {
    "allow_community_extensions": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "enable_external_access": "false",
}
"""DuckDB's settings without which it reaches files and the network."""

_numbers = count()


def needed() -> Any:
    """Return the DuckDB module.

    Raises
    ------
    PackageMissingError
        If DuckDB or pyarrow is missing; explains how to install them.
    """
    try:
        import duckdb
        import pyarrow as pa  # noqa: F401 - DuckDB exchanges blocks as Arrow arrays
    except ImportError as error:
        if "failed to map segment" in str(error) or "cannot allocate memory" in str(error):
            raise MemoryError(f"DuckDB and pyarrow could not be loaded: {error}") from error
        raise PackageMissingError(
            f"expressions, queries and statistics need DuckDB and pyarrow ({error}): pip install 'ratzarr[sql]', or "
            "conda install -c conda-forge python-duckdb pyarrow"
        ) from error
    return duckdb


@cache
def _spill() -> Path:
    """Return the temporary directory for large queries; removed when the process ends."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(temporary_path(Path(tempfile.gettempdir()), folder=True))


def sql_names(names: Iterable[str]) -> dict[str, str]:
    """Return other names for columns whose names differ only in case, which SQL ignores.

    >>> sql_names(["Area", "area", "AREA", "id"])
    {'area': 'area_2', 'AREA': 'AREA_3'}
    """
    wanted = list(names)
    taken = {name.casefold() for name in wanted}
    seen: set[str] = set()
    found = {}
    for name in wanted:
        if name.casefold() in seen:
            number = 2
            while f"{name}_{number}".casefold() in taken:
                number += 1
            found[name] = f"{name}_{number}"
            taken.add(found[name].casefold())
        seen.add(name.casefold())
    return found


class Database:
    """Tables in an in-memory DuckDB, by name. A context manager.

    Parameters
    ----------
    tables : mapping
        Tables by their names in queries: a :class:`gdalbridge.Table` or :class:`ratzarr.RatZarr`,
        or a data frame, an Arrow table or another object that DuckDB reads.
    allow_files : bool
        Let queries read and write files and URLs and load extensions, as DuckDB does by default.
    memory : int
        Bytes that DuckDB may use before it spills to a temporary directory.
    spills : bool
        False if queries beyond this memory are to fail, and no directory is made for them.
    settings : mapping, optional
        Further settings of DuckDB.

    Raises
    ------
    BridgeError
        If a table can't be read by DuckDB, or two names differ only in case.

    Warns
    -----
    UserWarning
        If columns get other names, because theirs differ only in case.
    """

    def __init__(
        self,
        tables: Mapping[str, Any],
        *,
        allow_files: bool = False,
        memory: int = MEMORY,
        spills: bool = True,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._duckdb = needed()
        self._allow_files, self._spills = allow_files, spills
        self._names = list(tables)
        self._scans: list[Any] = []
        config = {
            **settings,
            "memory_limit": f"{memory}B",
            "preserve_insertion_order": "true",
            "python_enable_replacements": "false",
        }
        self._connection = self._duckdb.connect(":memory:", config=config)
        self._thread = ThreadPoolExecutor(1, "query")
        try:
            self._configure()
            for name, table in tables.items():
                self._register(name, table, tables)
        except BaseException:
            self.close()
            raise

    def _configure(self) -> None:
        settings = {
            "TimeZone": "UTC",
            # The bar would be printed to stdout, among the results.
            "enable_progress_bar": "false",
            # While files can still be reached. DuckDB creates the directory when it needs it, and
            # removes it with all that is in it.
            "temp_directory": (
                str(_spill() / str(next(_numbers))).replace("'", "''") if self._spills else ""
            ),
        }
        if not self._allow_files:
            settings |= {**LOCKED, "lock_configuration": "true"}
        for name, value in settings.items():
            self._execute(f"SET {name} = '{value}'")

    def _execute(self, query: str) -> None:
        # Not in this thread, where DuckDB would make its own error of Ctrl-C.
        self.in_thread(lambda: self._connection.execute(query))

    def register(self, name: str, data: Any) -> None:
        """Make data a table, as DuckDB's method of this name; what was it before goes."""
        self.in_thread(lambda: self._connection.register(name, data))

    def _register(self, name: str, table: Any, tables: Mapping[str, Any]) -> None:
        from ratzarr.interop import TableDataset

        alike = [other for other in tables if other.casefold() == name.casefold()]
        if len(alike) > 1:
            raise BridgeError(f"two tables have the same name in SQL: {' and '.join(alike)}")
        if isinstance(table, TableMethods):
            self._register_table(name, table)
            return
        if isinstance(table, TableDataset):
            self._scans.append(table)
        try:
            self.register(name, table)
        except (self._duckdb.Error, TypeError) as error:
            raise BridgeError(
                f"{name} is not a table that DuckDB reads, but a {type(table).__name__}; give a "
                "Table, a data frame or an Arrow table"
            ) from error

    def _register_table(self, name: str, table: TableMethods) -> None:
        # DuckDB reads only the columns and chunks of it that a query needs. For one that needs no
        # column, it reads the first: the row numbers, which are last again in the view.
        renamed = _renamed(name, table.columns)
        scan = table.scan(rename=renamed, dictionaries=True, row_first=True)
        self._scans.append(scan)
        inner = f"{name}, row numbers first"
        self.register(inner, scan)
        row, *columns = map(quoted, scan.schema.names)
        self._execute(
            f"CREATE TEMP VIEW {quoted(name)} AS SELECT {', '.join([*columns, row])} "  # noqa: S608 - quoted names
            f"FROM {quoted(inner)}"
        )

    @property
    def connection(self) -> Any:
        """The DuckDB connection, for statements of our own."""
        return self._connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop a running query, and close the database."""
        self._connection.interrupt()
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._connection.close()

    def relation(self, query: str) -> Any:
        """Return a query as a DuckDB relation; nothing is read before its rows are fetched.

        Parameters
        ----------
        query : str
            One statement that returns rows; with ``allow_files`` any statements.

        Raises
        ------
        BridgeError
            For an invalid query; has DuckDB's reason.
        """
        try:
            statements = self.in_thread(lambda: self._connection.extract_statements(query))
            if not self._allow_files:
                self._check(query, statements)
            found = self.in_thread(lambda: self._connection.sql(query))
        except self._duckdb.Error as error:
            reason = self._reason(query, error)
            raise BridgeError(f"DuckDB can't run {query!r:.200}: {reason}") from error
        except UnicodeEncodeError:
            raise BridgeError(f"{query!a:.200} is not Unicode text") from None
        if found is None:
            raise BridgeError(
                f"{query!r:.200} returns no rows; a query starts with SELECT or FROM"
            )
        return found

    def _reason(self, query: str, error: Exception) -> str:
        """Return DuckDB's message, with a hint for users who are new to these tables."""
        said = str(error)
        missing = re.match(r"Catalog Error: Table with name (.*) does not exist!", said)
        if missing is not None:
            # DuckDB would suggest tables of its own.
            is_one = len(self._names) == 1
            there = f"table is called {self._names[0]}" if is_one else f"tables are {self._names}"
            return f"there is no table {missing[1]}; the {there}"
        column = re.match(r'Binder Error: Referenced column "(.*)" not found', said)
        if column is not None and f'"{column[1]}"' in query:
            said = f"{said}\n{in_single_quotes(column[1])}"
        return said

    def _check(self, query: str, statements: list[Any]) -> None:
        kinds = self._duckdb.StatementType
        # PIVOT is more than one statement to DuckDB.
        allowed = (kinds.SELECT, kinds.EXPLAIN, kinds.MULTI)
        if len(statements) != 1 or statements[0].type not in allowed:
            what = (
                f"{statements[0].type.name} is not one" if len(statements) == 1
                else f"here are {len(statements)}"
            )  # fmt: skip
            raise BridgeError(
                f"{query!r:.200}: a query is one statement that only reads, such as SELECT or FROM; "
                f"{what}"
            )

    def run[Value](
        self, work: Callable[[], Value], meanwhile: Callable[[], None] | None = None
    ) -> Value:
        """Do work on a relation in another thread, so that Ctrl-C ends it at once.

        Parameters
        ----------
        work : callable
        meanwhile : callable, optional
            Called from time to time until the work is done. An error that it raises, such as of a
            cancelled progress, ends the work.

        Raises
        ------
        BridgeError
            If the query fails; has DuckDB's reason.
        Exception
            If a table can't be read: its own error, which DuckDB would replace.
        """
        try:
            return self.in_thread(work, meanwhile)
        except self._duckdb.Error as error:
            for scan in self._scans:
                if scan.error is not None:
                    raise scan.error from None
            raise BridgeError(f"the query failed: {first_line(error)}") from error

    def in_thread[Value](
        self, work: Callable[[], Value], meanwhile: Callable[[], None] | None = None
    ) -> Value:
        """Do work as :meth:`run` does, but raise DuckDB's own errors."""
        try:
            answer = self._thread.submit(work)
            while meanwhile is not None and not wait([answer], SECONDS).done:
                meanwhile()
            return answer.result()
        except self._duckdb.Error:
            raise
        except BaseException:
            self._connection.interrupt()
            raise

    def batches(self, relation: Any) -> tuple[Any, Iterator[Any]]:
        """Return the Arrow schema of a relation, and its record batches as they are computed."""
        reader = self.run(lambda: relation.to_arrow_reader(BATCH_ROWS))

        def read() -> Any:
            # StopIteration can't leave a generator.
            return next(reader, None)

        def each() -> Iterator[Any]:
            while (batch := self.run(read)) is not None:
                yield batch

        return reader.schema, each()


def quoted(name: str) -> str:
    """Return a name in SQL.

    >>> print(quoted('a "b" c'))
    "a ""b"" c"
    """
    return '"' + name.replace('"', '""') + '"'


def _renamed(name: str, columns: Iterable[str]) -> dict[str, str]:
    renamed = sql_names(columns)
    if renamed:
        said = ", ".join(f"{old!r} is {new!r}" for old, new in renamed.items())
        warnings.warn(
            f"SQL does not tell apart names that differ only in case: in {name}, {said}",
            stacklevel=7,
        )
    return renamed


def relation(tables: Mapping[str, Any], query: str, *, allow_files: bool = False) -> Any:
    """Return a query as a DuckDB relation; nothing is read before its rows are fetched.

    Parameters and errors are those of :class:`Database` and :meth:`Database.relation`.

    Returns
    -------
    duckdb.DuckDBPyRelation
        An error while its rows are fetched is one of DuckDB's.
    """
    # The relation keeps the connection open.
    return Database(tables, allow_files=allow_files).relation(query)


def in_single_quotes(name: str) -> str:
    """Return a hint for a missing column whose name is in double quotes."""
    text = name.replace("'", "''")
    return f"(Double quotes are for names of columns; text is written in single ones: '{text}')"


def first_line(error: Exception) -> str:
    """Return DuckDB's message without the query."""
    return str(error).partition("\n")[0]
