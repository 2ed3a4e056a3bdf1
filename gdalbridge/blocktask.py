"""One block: its columns read, the function called, what it has set taken or written.

In the process of the script, what is read was read ahead, and what is set is written behind
(:mod:`gdalbridge.applyrun`). In another process a :class:`BlockTask`, sent there with
nothing but names in it, does all of that itself. The tables stay open there for the next
block of the same run.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from ratzarr import RatZarr

from .applysources import Source, Sources
from .blockvalues import (
    InputColumns,
    OutputBlock,
    OutputColumns,
    RatApplierState,
    Reader,
    Span,
    TablesOfBlock,
    collected,
    noted,
)
from .errors import ExecutorError
from .otherarguments import fingerprint_of, fresh_copy
from .ratassociations import Handle

__all__ = [
    "BlockTask",
    "Computed",
    "DirectTable",
    "Script",
    "read_columns",
    "run_alone",
    "run_block",
]

Array = NDArray[Any]
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
    """What tells its place, see :func:`gdalbridge.zarrsource.where`."""
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
