"""What each operation on a table on S3 costs, in requests: one list for the tests and the document.

``docs/s3.md`` shows it as a table; ``test_requests`` holds both to what is measured.
"""

from dataclasses import dataclass

__all__ = ["BUDGET", "Cost", "table"]


@dataclass(frozen=True, slots=True)
class Cost:
    """The requests of one operation."""

    operation: str
    requests: dict[str, int]
    """How many of each kind: GET, HEAD, PUT, LIST, DELETE (of up to 1000 objects)."""
    before: str
    """What the module ratzarr 1.0.2 takes, as far as it was counted; it has no answer to some."""
    formula: str = ""
    """In words, where the number depends on something."""

    @property
    def total(self) -> int:
        """How many in all."""
        return sum(self.requests.values())


BUDGET = {
    "open": Cost("open a table", {"GET": 1}, "12"),
    "create": Cost("create a table", {"GET": 1, "PUT": 2}, "20"),
    "rows": Cost(
        "`getRowCount`, `rowCount`, the first time",
        {"GET": 1},
        "",
        "none after a column was used; 1 LIST more without an order of columns",
    ),
    "names": Cost(
        "`getColumnNames`", {"LIST": 1}, "203 (of 100 columns)", "1 for each 1000 columns"
    ),
    "exists": Cost("`colExists`", {"GET": 1}, ""),
    "create column": Cost("`createColumn`", {"PUT": 2}, "10-12"),
    "create columns": Cost(
        "`createColumns`, 20 of them",
        {"LIST": 1, "GET": 1, "PUT": 21},
        "10-12 each",
        "n + 3, in parallel",
    ),
    "first block": Cost("`readBlock`, the first of a column", {"GET": 2}, "10", "1 + its chunks"),
    "next block": Cost("`readBlock`, another chunk", {"GET": 1}, "4"),
    "same chunk": Cost(
        "`readBlock`, more of a chunk that was read in part",
        {"HEAD": 1},
        "",
        "without its bytes; 2 if it was written since",
    ),
    "20 columns first": Cost("`readBlocks`, 20 columns, the first time", {"GET": 40}, "10 each"),
    "20 columns": Cost("`readBlocks`, 20 columns", {"GET": 20}, "4 each", "in parallel"),
    "log": Cost(
        "`writeBlock`, the first of a column: its log, and a whole chunk",
        {"GET": 1, "PUT": 2},
        "",
        "1 fewer if the column was read or created before",
    ),
    "write": Cost("`writeBlock`, a whole chunk", {"PUT": 1}, "3"),
    "part": Cost("`writeBlock`, part of a chunk", {"GET": 1, "PUT": 1}, "5"),
    "flush": Cost("`flush`, `close`, after writing to a column", {"GET": 1}, ""),
    "grow": Cost(
        "`setRowCount`, more rows, 20 columns",
        {"LIST": 2, "GET": 20, "PUT": 22},
        "1303 (100 columns)",
        "2 for each column + 4, in parallel",
    ),
    "grow known": Cost(
        "the same, of columns that were used before",
        {"LIST": 2, "PUT": 22},
        "1303 (100 columns)",
        "1 for each column + 4, in parallel",
    ),
    "cut": Cost(
        "`setRowCount`, fewer rows, 20 columns that were used before, a chunk of each goes",
        {"LIST": 22, "GET": 20, "PUT": 62},
        "",
        "3 for each column, 1 more for each chunk that goes and for each 1000 of them; + 4",
    ),
    "delete column": Cost(
        "`deleteColumn`",
        {"LIST": 1, "DELETE": 1, "PUT": 1},
        "",
        "2 for each 1000 objects, and 1 for the order",
    ),
    "delete large": Cost(
        "`deleteColumn`, 2001 objects",
        {"LIST": 3, "GET": 1, "DELETE": 3, "PUT": 2},
        "",
        "the same, and 2 to say first that it is no longer complete",
    ),
    "sidecars": Cost("`gdalbridge.find_sidecars`", {"LIST": 1}, ""),
    "attach": Cost(
        "`gdalbridge.attach` with one sidecar, before the first value",
        {"LIST": 2, "GET": 1},
        "",
        "besides GDAL's own for the raster, and up to 2 that look whether its pixels are the same; then as `readBlock`",
    ),
}


def table() -> str:
    """Return the budget as the table of the document."""
    lines = [
        "| operation | requests | of which | depends on | module 1.0.2 |",
        "|---|---|---|---|---|",
    ]
    for cost in BUDGET.values():
        kinds = ", ".join(f"{count} {kind}" for kind, count in cost.requests.items())
        lines.append(
            f"| {cost.operation} | {cost.total} | {kinds} | {cost.formula} | {cost.before} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
