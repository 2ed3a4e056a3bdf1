"""One block of rows: the columns that the user's function reads and those that it sets."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gdalbridge.apply.controls import Handle, fingerprint_of, fresh_copy
from gdalbridge.apply.inputs import Source, Sources
from gdalbridge.errors import BlockError, BridgeError, ColumnMissingError, ExecutorError
from gdalbridge.gdalio.field_types import usage_name
from ratzarr import RatZarr, RatZarrError
from ratzarr.format import STRING, as_block, exact, normalize_dtype

__all__ = [
    "BlockTask",
    "Computed",
    "DirectTable",
    "InputColumns",
    "OutputBlock",
    "OutputColumns",
    "RatApplierState",
    "Reader",
    "Script",
    "Span",
    "TablesOfBlock",
    "collected",
    "noted",
    "read_columns",
    "run_alone",
    "run_block",
    "weight",
]


Array = NDArray[Any]
TEXT_TIMES = 4
"""Memory that text needs while it is encoded, as a multiple of its size."""


def weight(values: Array) -> int:
    """Return about how many bytes of memory a block needs while it is encoded or decoded."""
    if values.dtype.kind == "T":
        return TEXT_TIMES * (values.nbytes + int(np.strings.str_len(values).sum()))
    if values.dtype.kind == "O":
        return TEXT_TIMES * (values.nbytes + sum(map(len, values.flat)))
    return 2 * values.nbytes


@dataclass(frozen=True, slots=True)
class Span:
    """The rows of one block."""

    index: int
    """Number of the block, from 0."""
    start: int
    length: int

    @property
    def stop(self) -> int:
        """The row after the last."""
        return self.start + self.length

    def __str__(self) -> str:
        return f"block {self.index} (rows {self.start} to {self.stop - 1})"


@contextmanager
def noted(span: Span) -> Iterator[None]:
    """Add a note to an exception that names its block."""
    try:
        yield
    except Exception as error:
        note = f"in {span}"
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        raise


@dataclass(eq=False)
class RatApplierState:
    """The position of a block in the run: the first argument of the user's function."""

    span: Span
    rowCount: int
    """Rows of all blocks."""

    @property
    def blockNdx(self) -> int:
        """Number of the block, from 0."""
        return self.span.index

    @property
    def startrow(self) -> int:
        """First row of the block in the tables."""
        return self.span.start

    @property
    def blockLen(self) -> int:
        """Number of rows in the block. The last block may have fewer than the others."""
        return self.span.length

    @cached_property
    def inputRowNumbers(self) -> NDArray[np.int64]:
        """Numbers of the block's rows in the tables."""
        return np.arange(self.span.start, self.span.stop, dtype=np.int64)


class Reader:
    """The columns of one table in one block. Each is read when it is first used.

    Parameters
    ----------
    label : str
        The script's name for the table.
    span : Span
        The block.
    source : callable
        Returns the table, or None if it does not exist yet.
    values : dict
        The columns that were read ahead.
    """

    def __init__(
        self,
        label: str,
        span: Span,
        source: Callable[[], Source | None],
        values: dict[str, Array],
    ) -> None:
        self.label, self._span, self._source, self._values = label, span, source, values
        self.used: set[str] = set()
        self.seconds = 0.0

    def _table(self, name: str) -> Source:
        source = self._source()
        if source is None:
            raise ColumnMissingError(
                f"{self.label} has no column {name!r}: the table does not exist yet"
            )
        if not source.has(name):
            raise ColumnMissingError(f"{self.label} ({source.name}) has no column {name!r}")
        return source

    def get(self, name: str) -> Array:
        """Return a column's rows."""
        if name not in self._values:
            started = time.perf_counter()
            source, span = self._table(name), self._span
            self._values[name] = source.read([name], span.start, span.length)[name]
            self.seconds += time.perf_counter() - started
        self.used.add(name)
        return self._values[name]

    def usage(self, name: str) -> int:
        """Return a column's GDAL usage as a number; 0 if the column does not exist."""
        try:
            return self._table(name).usage(name)
        except ColumnMissingError:
            return 0

    def attributes(self, name: str) -> dict[str, Any]:
        """Return a column's attributes."""
        return self._table(name).attributes(name)

    def names(self) -> list[str]:
        """Return the names of all columns."""
        source = self._source()
        return [] if source is None else source.names()

    def places(self) -> set[tuple[str, str]]:
        """Return the places of the used columns. A raster's own columns have none."""
        source = self._source() if self.used else None
        if source is None:
            return set()
        return {place for name in self.used if (place := source.place_of(name)) is not None}

    @property
    def weight(self) -> int:
        """Bytes of memory of all columns read."""
        return sum(map(weight, self._values.values()))


def _is_reserved(name: str) -> bool:
    # Python, numpy and notebooks look up such names on every object, and ours begin and end like
    # them. They are not columns.
    return name.startswith("__") and name.endswith("__")


class InputColumns:
    """A table to read from: ``inputs.img.area``, or ``inputs.img["Land Cover Class"]``."""

    __reader__: Reader

    def __init__(self, reader: Reader) -> None:
        vars(self)["__reader__"] = reader

    def __getattr__(self, name: str) -> Any:
        if _is_reserved(name):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Any:
        return self.__reader__.get(name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise BlockError(
            f"{self.__reader__.label} is an input, so its column {name!r} can't be set. Set a "
            "column of an output, which can be the same table."
        )

    def getUsage(self, columnName: str) -> int:
        """Return a column's GDAL usage as a number."""
        return self.__reader__.usage(columnName)

    def getAttributes(self, columnName: str) -> dict[str, Any]:
        """Return a column's attributes."""
        return self.__reader__.attributes(columnName)

    def getColumnNames(self) -> list[str]:
        """Return the names of all columns."""
        return self.__reader__.names()


class OutputColumns:
    """A table to write to: ``outputs.img.area = array``, or ``outputs.img["an area"]``.

    Reading a column returns the values set in this block, or else the table's.
    """

    __reader__: Reader
    __given__: dict[str, Any]
    __attributes__: dict[str, dict[str, Any]]

    def __init__(self, reader: Reader) -> None:
        vars(self).update(__reader__=reader, __given__={}, __attributes__={})

    def __getattr__(self, name: str) -> Any:
        if _is_reserved(name):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Any:
        given = self.__given__
        return given[name] if name in given else self.__reader__.get(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__given__[name] = value

    __setitem__ = __setattr__

    def getUsage(self, columnName: str) -> int:
        """Return a column's GDAL usage as a number."""
        usage = self.__attributes__.get(columnName, {}).get("GDAL_USAGE")
        return self.__reader__.usage(columnName) if usage is None else int(usage)

    def setUsage(self, columnName: str, usage: int) -> None:
        """Set a column's GDAL usage (``gdal.GFU_Red``, ...)."""
        attributes = {"GDAL_USAGE": int(usage), "GDAL_USAGE_NAME": usage_name(int(usage))}
        self.setAttributes(columnName, attributes)

    def setAttributes(self, columnName: str, attributes: Mapping[str, Any]) -> None:
        """Set attributes of a column. Its other attributes stay."""
        self.__attributes__.setdefault(columnName, {}).update(attributes)


class TablesOfBlock:
    """The tables of a block, by the script's names for them."""

    __kind__: str

    def __init__(self, kind: str, tables: Mapping[str, InputColumns | OutputColumns]) -> None:
        vars(self).update(tables, __kind__=kind)

    def __getattr__(self, name: str) -> Any:
        if _is_reserved(name):
            raise AttributeError(name)
        names = [label for label in vars(self) if not _is_reserved(label)]
        raise AttributeError(f"no {self.__kind__} {name!r}; the {self.__kind__}s are {names}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise BridgeError(
            f"{self.__kind__} {name!r} is a table: set one of its columns (x.{name}.column = array)"
        )

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


@dataclass(frozen=True, slots=True)
class OutputBlock:
    """The columns and attributes that a function has set in one table."""

    rows: int | None
    """Rows of each column; None if no column was set."""
    columns: dict[str, Array] = field(default_factory=dict)
    """Copies of the columns, with dtypes that can be stored."""
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)


def collected(
    label: str, given: Mapping[str, Any], attributes: dict[str, dict[str, Any]]
) -> OutputBlock:
    """Check and copy the columns that a function has set.

    Raises
    ------
    BlockError
        If a value is not an array of rows, or columns differ in length.
    """
    columns = {name: _column(label, name, value) for name, value in given.items()}
    rows: int | None = None
    for name, values in columns.items():
        if rows is None:
            first, rows = name, len(values)
        elif len(values) != rows:
            raise BlockError(
                f"{label}: column {name!r} was set to {len(values)} rows, and column {first!r} "
                f"to {rows}. In a block, all columns of a table need the same number of rows."
            )
    return OutputBlock(rows, columns, attributes)


def _column(label: str, name: str, value: Any) -> Array:
    if not name:
        raise BlockError(f"{label}: the name of a column must not be empty")
    try:
        block = as_block(value, column=name)
        if block.ndim not in (1, 2):
            raise BlockError(
                f"{label}: column {name!r} was set to {_shown(value)}: expected an array of shape "
                "(n,), or (n, k) for k values per row"
            )
        if block.ndim == 2 and block.shape[1] == 1:
            raise BlockError(
                f"{label}: column {name!r} was set to an array of shape {block.shape}: expected "
                "shape (n,) for one value per row, such as block[:, 0]"
            )
        kinds = set(map(type, block.flat)) if block.dtype.kind == "O" else set()
        if not kinds <= {bytes} and kinds != {str}:
            found = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise BlockError(
                f"{label}: column {name!r} was set to objects ({found}): expected an array of "
                "numbers, text, bytes or date-times (numpy.datetime64)"
            )
        if block.dtype.kind in "SU" or kinds == {str}:
            # A column of fixed width could not hold a longer text of a later block.
            return exact(block, STRING, column=name, first_row=None)
        if block.dtype.kind != "O":
            normalize_dtype(block.dtype)
        return block.copy()
    except RatZarrError as error:
        error.add_note(f"(column {name!r} of {label})")
        raise


def _shown(value: Any) -> str:
    shape = np.shape(value)
    return f"an array of shape {shape}" if shape else f"{value!r:.80}"


type Columns = dict[str, dict[str, Array]]
"""Columns of one block, by the script's name for the table and the column's name."""


@dataclass(frozen=True, slots=True)
class Script:
    """A user's function and the tables that it works on."""

    function: Callable[..., Any]
    inputs: Mapping[str, Handle]
    outputs: Mapping[str, Handle]
    rows: int
    """Rows to process."""
    has_otherargs: bool
    merges: bool
    """True if each block's changes to its copy of the otherargs are merged."""


@dataclass(frozen=True, slots=True)
class Computed:
    """The result of one block."""

    span: Span
    outputs: dict[str, OutputBlock]
    used: dict[str, frozenset[str]]
    """By input, the columns that the function has read."""
    reads: frozenset[tuple[str, str]]
    """Places of the columns that the function has read, in inputs and outputs."""
    weight: int
    """Bytes of memory of the columns read."""
    reading: float
    computing: float
    otherargs: Any = None
    """The block's copy of the otherargs, if copies are merged."""
    written: dict[str, frozenset[str]] = field(default_factory=dict)
    """By output, the columns that the worker has written. ``outputs`` lacks their arrays."""
    writing: float = 0.0


def read_columns(
    sources: Sources, script: Script, span: Span, wanted: Mapping[str, list[str]]
) -> Columns:
    """Read the columns that the function will probably use."""
    with noted(span):
        return {
            label: sources[script.inputs[label]].read(names, span.start, span.length)
            for label, names in wanted.items()
            if names
        }


def run_block(
    script: Script, sources: Sources, span: Span, values: Columns, otherargs: Any
) -> Computed:
    """Call the function for one block."""

    def table(handle: Handle) -> Callable[[], Source | None]:
        return lambda: sources.get(handle)

    with noted(span):
        readers = {
            label: Reader(label, span, table(handle), dict(values.get(label, {})))
            for label, handle in script.inputs.items()
        }
        inputs = TablesOfBlock(
            "input", {label: InputColumns(reader) for label, reader in readers.items()}
        )
        output_readers = {
            label: Reader(label, span, table(handle), {})
            for label, handle in script.outputs.items()
        }
        targets = {label: OutputColumns(reader) for label, reader in output_readers.items()}
        outputs = TablesOfBlock("output", targets)
        extra = (otherargs,) if script.has_otherargs else ()
        started = time.perf_counter()
        script.function(RatApplierState(span, script.rows), inputs, outputs, *extra)
        results = {
            label: collected(label, target.__given__, target.__attributes__)
            for label, target in targets.items()
        }
        seconds = time.perf_counter() - started
    all_readers = [*readers.values(), *output_readers.values()]
    read = sum(reader.seconds for reader in all_readers)
    used = {label: frozenset(reader.used) for label, reader in readers.items()}
    size = sum(reader.weight for reader in readers.values())
    places = frozenset().union(*(reader.places() for reader in all_readers))
    return Computed(span, results, used, places, size, read, seconds - read)


def run_alone(
    script: Script, sources: Sources, span: Span, values: Columns, otherargs: Any
) -> Computed:
    """Call the function for one of several parallel blocks, with a copy of the otherargs.

    Raises
    ------
    ExecutorError
        If the function changes its copy and the run does not merge the copies.
    """
    with noted(span):
        copied = fresh_copy(otherargs)
        before = b"" if script.merges else fingerprint_of(copied)
        computed = run_block(script, sources, span, values, copied)
        if script.merges:
            return replace(computed, otherargs=copied)
        if fingerprint_of(copied) != before:
            raise ExecutorError(
                "the function has changed its otherargs, but each parallel block has a copy of "
                "its own. Merge the copies with controls.setMerge(...), or run the blocks in turn "
                'with controls.setExecutor("serial").'
            )
        return computed


@dataclass(frozen=True, slots=True)
class DirectTable:
    """A table that workers write to directly, because each block is whole chunks."""

    name: str
    where: str
    """The table's place, see :func:`gdalbridge.sidecars.naming.where`."""
    options: Mapping[str, Any] | None = field(repr=False)
    columns: frozenset[str]
    """The columns that exist already."""


@dataclass(frozen=True)
class BlockTask:
    """Reads, computes and writes a block, in any process."""

    run: str
    """An id of the run, because a process may work for several."""
    script: Script
    strings: bool
    ours: Mapping[tuple[str, str], bool]
    wanted: dict[str, list[str]]
    """By input, the columns that the first block has read."""
    direct: dict[str, DirectTable]
    empty: frozenset[str]
    """The outputs without a column of this run."""
    otherargs: Any = field(repr=False)

    def __call__(self, span: Span) -> Computed:
        """Process one block."""
        with noted(span):
            here = _opened(self)
            started = time.perf_counter()
            values = read_columns(here.sources, self.script, span, self.wanted)
            reading = time.perf_counter() - started
            computed = run_alone(self.script, here.sources, span, values, self.otherargs)
            started = time.perf_counter()
            outputs, written = dict(computed.outputs), dict[str, frozenset[str]]()
            # A table without columns has no trace of a block that is not written. So the calling
            # process creates its columns before it writes any of the block.
            is_known = not any(outputs[label].columns for label in self.empty)
            for label, table in self.direct.items() if is_known else ():
                block = outputs[label]
                is_whole = block.rows == span.length and block.columns.keys() <= table.columns
                # If a worker is lost after it has written, its block runs again. If the function
                # reads the same columns, it would then read its own results. So the calling
                # process writes such columns, once.
                is_read = any((table.where, name) in computed.reads for name in block.columns)
                if is_whole and not is_read:
                    here.table(table).writeBlocks(block.columns, span.start)
                    outputs[label] = OutputBlock(block.rows, {}, block.attributes)
                    written[label] = frozenset(block.columns)
            return replace(
                computed,
                outputs=outputs,
                written=written,
                reading=computed.reading + reading,
                writing=time.perf_counter() - started,
            )


class _OpenTables:
    """The tables that a run has open in one process."""

    def __init__(self, task: BlockTask) -> None:
        self.run = task.run
        self.sources = Sources(task.strings, task.ours)
        self._tables: dict[str, RatZarr] = {}
        self._lock = threading.Lock()

    def table(self, direct: DirectTable) -> RatZarr:
        with self._lock:
            if direct.name not in self._tables:
                self._tables[direct.name] = RatZarr(
                    direct.name, create=False, storageOptions=direct.options
                )
            return self._tables[direct.name]


_here: list[_OpenTables] = []
_lock = threading.Lock()
MAX_OPEN_RUNS = 2
"""Number of runs whose tables a process keeps open."""


def _opened(task: BlockTask) -> _OpenTables:
    with _lock:
        for one in _here:
            if one.run == task.run:
                return one
        _here.append(found := _OpenTables(task))
        # The dropped tables are not closed, because another thread may still use them.
        del _here[:-MAX_OPEN_RUNS]
        return found
