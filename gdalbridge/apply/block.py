"""One block of a script's run: what the function sees and what it sets."""

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
from ratzarr.format import as_block, exact, normalize_dtype

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
TEXT = np.dtypes.StringDType()
TEXT_TIMES = 4
"""What a text takes in memory while it is packed, in times of its size."""


def weight(values: Array) -> int:
    """Return the bytes of memory that a block takes, about, while it is packed or unpacked."""
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
    """Have errors say in which block they happened."""
    try:
        yield
    except Exception as error:
        note = f"in {span}"
        if note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        raise


@dataclass(eq=False)
class RatApplierState:
    """Where a function is: its first argument."""

    span: Span
    rowCount: int
    """Rows that are worked through in all."""

    @property
    def blockNdx(self) -> int:
        """Number of the block, from 0."""
        return self.span.index

    @property
    def startrow(self) -> int:
        """Its first row in the tables."""
        return self.span.start

    @property
    def blockLen(self) -> int:
        """How many rows it has; the last one may have fewer than the others."""
        return self.span.length

    @cached_property
    def inputRowNumbers(self) -> NDArray[np.int64]:
        """The rows' numbers in the tables."""
        return np.arange(self.span.start, self.span.stop, dtype=np.int64)


class Reader:
    """One table's columns of one block, read when they are asked for.

    Parameters
    ----------
    label : str
        The script's name for the table.
    span : Span
        The block.
    source : callable
        Returns the table, or None where there is none yet.
    values : dict
        What was read ahead.
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
            raise ColumnMissingError(f"{self.label} has no column {name!r}: it has none yet")
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
        """Return the number of GDAL's usage of a column; 0 where there is none."""
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
        """Return where the columns are stored that were used, of those that are in a store."""
        source = self._source() if self.used else None
        if source is None:
            return set()
        return {place for name in self.used if (place := source.place_of(name)) is not None}

    @property
    def weight(self) -> int:
        """Bytes of memory of all that was read."""
        return sum(map(weight, self._values.values()))


def _is_own(name: str) -> bool:
    # What Python, numpy and notebooks ask every object for is no column; nor is what is not
    # there yet while an object is being copied.
    return (name.startswith("__") and name.endswith("__")) or name.startswith(
        ("_InputColumns__", "_OutputColumns__")
    )


class InputColumns:
    """A table that is read: ``inputs.img.area``, or ``inputs.img["Land Cover Class"]``."""

    __slots__ = ("__reader",)
    __reader: Reader

    def __init__(self, reader: Reader) -> None:
        object.__setattr__(self, "_InputColumns__reader", reader)

    def __getattr__(self, name: str) -> Any:
        if _is_own(name):
            raise AttributeError(name)
        return self.__reader.get(name)

    def __getitem__(self, name: str) -> Array:
        return self.__reader.get(name)

    def __setattr__(self, name: str, value: Any) -> None:
        raise BlockError(
            f"{self.__reader.label} is an input, and its column {name!r} can't be set: set columns "
            "of the outputs (both can be of one table)"
        )

    def getUsage(self, columnName: str) -> int:
        """Return the number of GDAL's usage of a column."""
        return self.__reader.usage(columnName)

    def getAttributes(self, columnName: str) -> dict[str, Any]:
        """Return what else is known of a column."""
        return self.__reader.attributes(columnName)

    def getColumnNames(self) -> list[str]:
        """Return the names of all columns."""
        return self.__reader.names()


class OutputColumns:
    """A table that is written: ``outputs.img.area = array``, or ``outputs.img["an area"]``.

    A column that was set is what was set; any other is read as it is in the table.
    """

    __slots__ = ("__attributes", "__given", "__reader")
    __reader: Reader
    __given: dict[str, Any]
    __attributes: dict[str, dict[str, Any]]

    def __init__(
        self, reader: Reader, given: dict[str, Any], attributes: dict[str, dict[str, Any]]
    ) -> None:
        object.__setattr__(self, "_OutputColumns__reader", reader)
        object.__setattr__(self, "_OutputColumns__given", given)
        object.__setattr__(self, "_OutputColumns__attributes", attributes)

    def __getattr__(self, name: str) -> Any:
        if _is_own(name):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Any:
        given = self.__given
        return given[name] if name in given else self.__reader.get(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__given[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        self.__given[name] = value

    def getUsage(self, columnName: str) -> int:
        """Return the number of GDAL's usage of a column."""
        usage = self.__attributes.get(columnName, {}).get("GDAL_USAGE")
        return self.__reader.usage(columnName) if usage is None else int(usage)

    def setUsage(self, columnName: str, usage: int) -> None:
        """Say what a column is, by the number of GDAL's usage (``gdal.GFU_Red``, ...)."""
        told = {"GDAL_USAGE": int(usage), "GDAL_USAGE_NAME": usage_name(int(usage))}
        self.setAttributes(columnName, told)

    def setAttributes(self, columnName: str, attributes: Mapping[str, Any]) -> None:
        """Say something else of a column."""
        self.__attributes.setdefault(columnName, {}).update(attributes)


class TablesOfBlock:
    """The tables of a block by the script's names for them."""

    def __init__(self, what: str, tables: Mapping[str, InputColumns | OutputColumns]) -> None:
        self.__dict__.update(tables)
        self.__dict__["_TablesOfBlock__what"] = what

    def __getattr__(self, name: str) -> Any:
        if _is_own(name) or name.startswith("_TablesOfBlock__"):
            raise AttributeError(name)
        there = [one for one in self.__dict__ if not one.startswith("_TablesOfBlock__")]
        raise AttributeError(f"there is no {self.__what} {name!r}; there are {there}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise BridgeError(
            f"{self.__what} {name!r} is a table: set a column of it (x.{name}.column = array)"
        )

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


@dataclass(frozen=True, slots=True)
class OutputBlock:
    """What a function has set of one table."""

    rows: int | None
    """Of each of its columns; None where there is no column."""
    columns: dict[str, Array] = field(default_factory=dict)
    """As they can be stored, and nobody else's."""
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)


def collected(
    label: str, given: Mapping[str, Any], attributes: dict[str, dict[str, Any]]
) -> OutputBlock:
    """Take what a function has set.

    Raises
    ------
    BlockError
        For what is no block of rows, and for columns of different lengths.
    """
    columns = {name: _column(label, name, value) for name, value in given.items()}
    rows: int | None = None
    for name, values in columns.items():
        if rows is None:
            first, rows = name, len(values)
        elif len(values) != rows:
            raise BlockError(
                f"{label}: column {name!r} was set to {len(values)} rows, and column {first!r} "
                f"to {rows}: the columns of one table have the same rows"
            )
    return OutputBlock(rows, columns, attributes)


def _column(label: str, name: str, value: Any) -> Array:
    if not name:
        raise BlockError(f"{label}: a column has a name that is not empty")
    try:
        block = as_block(value, column=name)
        if block.ndim not in (1, 2):
            raise BlockError(
                f"{label}: column {name!r} was set to {_shown(value)}: expected an array of rows, "
                "or of rows and several values for each"
            )
        if block.ndim == 2 and block.shape[1] == 1:
            raise BlockError(
                f"{label}: column {name!r} was set to an array of shape {block.shape}: one value "
                "per row is an array of shape (n,), as of block[:, 0]"
            )
        kinds = set(map(type, block.flat)) if block.dtype.kind == "O" else set()
        if not kinds <= {bytes} and kinds != {str}:
            found = ", ".join(sorted(kind.__name__ for kind in kinds))
            raise BlockError(
                f"{label}: column {name!r} was set to objects ({found}): expected an array of "
                "numbers, text, bytes or date-times (numpy.datetime64)"
            )
        if block.dtype.kind in "SU" or kinds == {str}:
            # In a column of its own width a longer text of a later block had no room.
            return exact(block, TEXT, column=name, first_row=None)
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
"""Columns of one block, by the script's name of the table and their own."""


@dataclass(frozen=True, slots=True)
class Script:
    """A user's function, and the tables that it is for."""

    function: Callable[..., Any]
    inputs: Mapping[str, Handle]
    outputs: Mapping[str, Handle]
    rows: int
    """Rows that are worked through."""
    has_otherargs: bool
    merges: bool
    """Whether changes of a block's copy of the otherargs are wanted."""


@dataclass(frozen=True, slots=True)
class Computed:
    """What became of one block."""

    span: Span
    outputs: dict[str, OutputBlock]
    used: dict[str, frozenset[str]]
    """Columns of the inputs that the function has read."""
    reads: frozenset[tuple[str, str]]
    """Where the columns are stored that it has read, of the outputs too."""
    weight: int
    """Bytes of memory of what was read."""
    reading: float
    computing: float
    otherargs: Any = None
    """The block's copy of them, where they are to be merged."""
    written: dict[str, frozenset[str]] = field(default_factory=dict)
    """By output, the columns that are in the store already; their arrays are not here."""
    writing: float = 0.0


def read_columns(
    sources: Sources, script: Script, span: Span, wanted: Mapping[str, list[str]]
) -> Columns:
    """Read the columns that are likely to be used."""
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
        given: dict[str, dict[str, Any]] = {label: {} for label in script.outputs}
        said: dict[str, dict[str, dict[str, Any]]] = {label: {} for label in script.outputs}
        looks = {
            label: Reader(label, span, table(handle), {})
            for label, handle in script.outputs.items()
        }
        outputs = TablesOfBlock(
            "output",
            {
                label: OutputColumns(reader, given[label], said[label])
                for label, reader in looks.items()
            },
        )
        extra = (otherargs,) if script.has_otherargs else ()
        started = time.perf_counter()
        script.function(RatApplierState(span, script.rows), inputs, outputs, *extra)
        found = {label: collected(label, given[label], said[label]) for label in script.outputs}
        seconds = time.perf_counter() - started
    read = sum(reader.seconds for reader in [*readers.values(), *looks.values()])
    used = {label: frozenset(reader.used) for label, reader in readers.items()}
    size = sum(reader.weight for reader in readers.values())
    places = frozenset().union(*(one.places() for one in [*readers.values(), *looks.values()]))
    return Computed(span, found, used, places, size, read, seconds - read)


def run_alone(
    script: Script, sources: Sources, span: Span, values: Columns, otherargs: Any
) -> Computed:
    """Call the function for one block of several at once, with otherargs of its own.

    Raises
    ------
    ExecutorError
        Where it changes its otherargs, and nobody said what is to become of that.
    """
    with noted(span):
        own = fresh_copy(otherargs)
        before = b"" if script.merges else fingerprint_of(own)
        computed = run_block(script, sources, span, values, own)
        if script.merges:
            return replace(computed, otherargs=own)
        if fingerprint_of(own) != before:
            raise ExecutorError(
                "the function has changed its otherargs, and blocks that are worked on at the "
                "same time have each their own: controls.setMerge(...) says how they come "
                'together; controls.setExecutor("serial") runs one block after another'
            )
        return computed


@dataclass(frozen=True, slots=True)
class DirectTable:
    """A table that other processes write to: blocks that are whole chunks, each its own."""

    name: str
    where: str
    """What tells its place, see :func:`gdalbridge.apply.inputs.where`."""
    options: Mapping[str, Any] | None = field(repr=False)
    columns: frozenset[str]
    """Those that are there."""


@dataclass(frozen=True)
class BlockTask:
    """Reads, computes and writes a block in whichever process it is called."""

    run: str
    """Tells one run from another, as a process may serve several."""
    script: Script
    strings: bool
    ours: Mapping[tuple[str, str], bool]
    wanted: dict[str, list[str]]
    """Columns of the inputs that the first block has read."""
    direct: dict[str, DirectTable]
    otherargs: Any = field(repr=False)

    def __call__(self, span: Span) -> Computed:
        """Do one block."""
        with noted(span):
            here = _opened(self)
            started = time.perf_counter()
            values = read_columns(here.sources, self.script, span, self.wanted)
            reading = time.perf_counter() - started
            computed = run_alone(self.script, here.sources, span, values, self.otherargs)
            started = time.perf_counter()
            outputs, written = dict(computed.outputs), dict[str, frozenset[str]]()
            for label, table in self.direct.items():
                block = outputs[label]
                is_whole = block.rows == span.length and block.columns.keys() <= table.columns
                # A worker may be lost when it has written, and its block be done again: that must
                # not find what the function reads changed already. Such columns are written
                # where the result arrives, and so once.
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
    """What a run has open in one process."""

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
KEPT = 2
"""Runs whose tables a process keeps open; earlier ones are let go."""


def _opened(task: BlockTask) -> _OpenTables:
    with _lock:
        for one in _here:
            if one.run == task.run:
                return one
        _here.append(found := _OpenTables(task))
        # Not closed: another thread may be at work on a block of it.
        del _here[:-KEPT]
        return found
