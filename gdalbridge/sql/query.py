"""Queries over tables in DuckDB's SQL, without access to files, the network or Python's variables."""

import tempfile
import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from gdalbridge.errors import BridgeError
from gdalbridge.sql.expressions import needed
from ratzarr.interop import TableMethods

__all__ = ["relation", "sql_names"]

MEMORY = "2GB"
"""Memory of DuckDB; beyond it, a query spills to a temporary directory."""


@cache
def _spill() -> Any:
    """Return the temporary directory for large queries; removed when the process ends."""
    return tempfile.TemporaryDirectory(prefix="ratzarr-sql-")


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


def relation(tables: Mapping[str, Any], query: str, *, allow_files: bool = False) -> Any:
    """Return a query as a DuckDB relation; nothing is read before its rows are fetched.

    Parameters
    ----------
    tables : mapping
        Tables by their names in the query: a :class:`gdalbridge.Table` or
        :class:`ratzarr.RatZarr`, or a data frame or Arrow table.
    query : str
        One statement that returns rows.
    allow_files : bool
        Let the query read and write files and URLs, as DuckDB does by default.

    Returns
    -------
    duckdb.DuckDBPyRelation

    Raises
    ------
    BridgeError
        For an invalid query; has DuckDB's reason.

    Warns
    -----
    UserWarning
        If columns get other names, because theirs differ only in case.
    """
    duckdb = needed()
    config = {
        "memory_limit": MEMORY,
        "preserve_insertion_order": "true",
        "python_enable_replacements": "false",
        "temp_directory": _spill().name,
    }
    if not allow_files:
        config |= {
            "allow_community_extensions": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "enable_external_access": "false",
        }
    connection = duckdb.connect(":memory:", config=config)
    try:
        connection.execute("SET TimeZone = 'UTC'")
        # The bar would be printed to stdout, among the results.
        connection.execute("SET enable_progress_bar = false")
        connection.execute("SET lock_configuration = true")
        for name, table in tables.items():
            connection.register(name, _registered(name, table))
        found = connection.sql(query)
    except duckdb.Error as error:
        raise BridgeError(f"DuckDB can't run {query!r:.200}: {error}") from error
    if found is None:
        raise BridgeError(f"{query!r:.200} returns no rows; a query starts with SELECT or FROM")
    return found


def _registered(name: str, table: Any) -> Any:
    """Return what DuckDB reads: only the columns and chunks that a query needs."""
    if not isinstance(table, TableMethods):
        return table
    renamed = sql_names(table.columns)
    if renamed:
        said = ", ".join(f"{old!r} is {new!r}" for old, new in renamed.items())
        warnings.warn(
            f"SQL does not tell apart names that differ only in case: in {name}, {said}",
            stacklevel=5,
        )
    return table.scan(rename=renamed)
