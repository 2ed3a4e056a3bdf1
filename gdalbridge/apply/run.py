"""Run a script: the first block alone, then the others through an executor.

The first block shows which columns the function reads and writes. The calling process creates the
output columns. The executor then returns the other blocks in order. If it runs in the calling
process, the columns that the function will probably use are read ahead, and results are written in
the background, both in bounded memory. Worker processes read their own blocks, and write to tables
in which each block is whole chunks. They send other results back to the calling process, which
writes them.
"""

import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.typing import NDArray

from gdalbridge.apply.block import (
    BlockTask,
    Columns,
    Computed,
    DirectTable,
    Script,
    Span,
    noted,
    read_columns,
    run_alone,
    run_block,
    weight,
)
from gdalbridge.apply.controls import (
    ApplyReport,
    Handle,
    RatApplierControls,
    RatHandle,
    fingerprint_of,
    fresh_copy,
)
from gdalbridge.apply.executors import Executor, make_executor
from gdalbridge.apply.inputs import Source, Sources
from gdalbridge.apply.outputs import Sink, Write, chunk_rows_for, same_places
from gdalbridge.apply.records import Record, Unfinished
from gdalbridge.errors import BlockError, BridgeError, CancelledError
from gdalbridge.progress import Progress, progress_of
from ratzarr import ColumnIncompleteError, RatZarrError, StoreError
from ratzarr.pipeline import ReadAhead, write_behind

__all__ = ["run_script"]


OPEN_THREADS = 16


def open_tables(
    inputs: dict[str, Handle], outputs: dict[str, Handle], sources: Sources
) -> dict[str, Sink]:
    """Open all tables; stand-alone tables are opened in parallel."""
    with ThreadPoolExecutor(OPEN_THREADS, "open") as pool:
        waiting = [
            pool.submit(sources.__getitem__, handle)
            for handle in inputs.values()
            if not isinstance(handle, RatHandle)
        ]
        opened = {
            label: pool.submit(Sink, label, handle)
            for label, handle in outputs.items()
            if not isinstance(handle, RatHandle)
        }
        # Rasters are opened in one thread. If two in one bucket have different settings, opening
        # raises an error in one thread, but two threads would wait for each other.
        sinks = {
            label: Sink(label, handle, partial(_own_usages, handle, inputs, sources))
            for label, handle in outputs.items()
            if isinstance(handle, RatHandle)
        }
        for handle in inputs.values():
            if isinstance(handle, RatHandle):
                _ = sources[handle]
        for future in waiting:
            future.result()
        sinks |= {label: future.result() for label, future in opened.items()}
        return {label: sinks[label] for label in outputs}


def _own_usages(
    handle: RatHandle, inputs: Mapping[str, Handle], sources: Sources
) -> Mapping[str, int]:
    """Return the usages of a raster's own columns, from an input if it is the same raster."""
    for one in inputs.values():
        if isinstance(one, RatHandle) and one.same_band(handle):
            return sources[one].own_usages()
    return sources[handle].own_usages()


def row_count(controls: RatApplierControls, inputs: Mapping[str, Source]) -> int:
    """Return the number of rows to process.

    Raises
    ------
    RasterNotFoundError
        If an input has no table.
    BlockError
        If the inputs differ in rows or have too few.
    BridgeError
        If there are no inputs and no row count is set.
    """
    for source in inputs.values():
        if source.missing is not None:
            raise source.missing
    counts = {label: source.rows for label, source in inputs.items()}
    listed = ", ".join(f"{label} ({inputs[label].name}) has {n}" for label, n in counts.items())
    if controls.rowCount is not None:
        if any(count < controls.rowCount for count in counts.values()):
            raise BlockError(f"setRowCount asks for {controls.rowCount} rows, but {listed}")
        return controls.rowCount
    if not counts:
        raise BridgeError(
            "the number of rows is unknown without inputs: set it with controls.setRowCount(...)"
        )
    if len(set(counts.values())) > 1:
        raise BlockError(
            f"the inputs have different numbers of rows: {listed}. To process the first n rows of "
            "each, use controls.setRowCount(n)."
        )
    return next(iter(counts.values()))


def lengths(
    controls: RatApplierControls,
    rows: int,
    sinks: Mapping[str, Sink],
    inputs: Mapping[str, Source],
) -> tuple[int, int]:
    """Return the block length, and the chunk size for new tables."""
    existing = [chunk for sink in sinks.values() if (chunk := sink.chunk_rows)]
    usual = max([source.chunk_rows or 0 for source in inputs.values()], default=0)
    chunk = chunk_rows_for(controls.blockLen, rows, max(existing, default=usual) or None)
    if controls.blockLen is not None:
        return controls.blockLen, chunk
    candidates = [*existing, chunk] if len(existing) < len(sinks) else existing
    return max(candidates, default=chunk), chunk


Array = NDArray[Any]

INTERRUPTIONS = (CancelledError, KeyboardInterrupt, StoreError)
"""Errors that stop a run although its values are right, so that it can be resumed."""
RESUME_NOTE = "blocks that are written stay; resume the run with controls.setResume(True)"
THREADS = 24
"""Threads that read, and as many that write. The default limit of requests is higher, so creating
columns need not wait for the blocks that are read ahead."""
AHEAD = 64
"""Maximum number of blocks that are read ahead or wait to be written; memory may allow fewer."""
FORGET = 8
"""A column that the function has not used for this many blocks is no longer read ahead."""
SECONDS = 5.0
"""Time between two notes of progress in the columns, because each note costs a request per column."""


def run_script(
    function: Callable[..., Any],
    inputs: dict[str, Handle],
    outputs: dict[str, Handle],
    otherargs: Any,
    controls: RatApplierControls,
) -> ApplyReport:
    """Run a function over all blocks; see :func:`gdalbridge.ratapplier.apply`."""
    started = time.perf_counter()
    if any(isinstance(handle, RatHandle) for handle in [*inputs.values(), *outputs.values()]):
        from gdalbridge.attached_rat.open_sidecars import flush_all

        # Attached tables of this process may hold changes in memory.
        flush_all()
    with ExitStack() as stack:
        executor = make_executor(controls.executor, controls.workers)
        if executor is not controls.executor:
            stack.callback(executor.close)
        ours: dict[tuple[str, str], bool] = {}
        sources = Sources(controls.useStringDType, ours)
        stack.callback(sources.close)
        sinks = open_tables(inputs, outputs, sources)
        for sink in sinks.values():
            stack.callback(sink.close)
        same_places(list(sinks.values()))
        read = {label: sources[handle] for label, handle in inputs.items()}
        rows = row_count(controls, read)
        block_rows, chunk_rows = lengths(controls, rows, sinks, read)
        script = Script(
            function, inputs, outputs, rows, otherargs is not None, controls.merge is not None
        )
        work = _Work(script, controls, executor, sources, sinks, ours, otherargs)
        for sink in sinks.values():
            record = Record.of(function, rows, inputs, sink.name)
            sink.prepare(controls, record, block_rows, chunk_rows, ours, work.reads)
        spans = [
            Span(index, start, min(block_rows, rows - start))
            for index, start in enumerate(range(0, rows, block_rows))
        ]
        unfinished = work.resume() if controls.resume else []
        remaining = [
            span
            for span in spans
            if not unfinished or not all(one.has(span) for one in unfinished)
        ]
        progress = stack.enter_context(progress_of(controls.progress))
        work.do(remaining, len(spans), progress)
    return ApplyReport(
        rows=rows,
        blocks=len(spans),
        blocks_there=len(spans) - len(remaining),
        written=tuple(sink.name for sink in sinks.values() if sink.written()),
        executor=executor.kind,
        workers=executor.workers,
        seconds=time.perf_counter() - started,
        reading=work.reading,
        computing=work.computing,
        writing=work.writing,
    )


@dataclass(slots=True)
class _Batch:
    """The writes of one block, and the progress of the outputs after them."""

    span: Span
    number: int
    """Position of the batch in the order of the run."""
    writes: list[Write]
    certain: dict[str, int]
    """By output, the leading rows that are complete once this and all earlier batches are
    written."""

    @property
    def weight(self) -> int:
        return sum(write.weight for write in self.writes)


class _Work:
    """The state of a run."""

    def __init__(
        self,
        script: Script,
        controls: RatApplierControls,
        executor: Executor,
        sources: Sources,
        sinks: dict[str, Sink],
        ours: dict[tuple[str, str], bool],
        otherargs: Any,
    ) -> None:
        self._script, self._controls, self._executor = script, controls, executor
        self._sources, self._sinks, self._ours = sources, sinks, ours
        self._total = otherargs
        # If this process runs one block at a time, the function gets the caller's otherargs
        # themselves, as in RIOS.
        self._is_serial = executor.in_process and executor.workers == 1
        # Each block gets a copy of the original otherargs. Merging changes the caller's object, so
        # the original is kept.
        merges = script.merges and not self._is_serial
        self._original = fresh_copy(otherargs) if merges else otherargs
        self._direct: dict[str, DirectTable] = {}
        # By input and column, the last block that used the column.
        self._used: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self.reads: set[tuple[str, str]] = set()
        """The places of the columns that the function has read."""
        self._resumed = False
        # By output, the leading rows up to the first block that is not written.
        self._certain: dict[str, int] = {}
        self._done: dict[int, dict[str, int]] = {}
        self._next = 0
        self._lock = threading.Lock()
        self._noted = time.monotonic()
        self._inside = 0.0
        self.reading = self.computing = self.writing = 0.0

    def _wanted(self, index: int) -> dict[str, list[str]]:
        return {
            label: [name for name, last in list(columns.items()) if last >= index - FORGET - AHEAD]
            for label, columns in list(self._used.items())
        }

    # ---- resuming

    def resume(self) -> list[Unfinished]:
        """Resume the columns that an interrupted run has not completed, and return them.

        Raises
        ------
        BridgeError
            If the run can't be resumed.
        """
        if self._controls.merge is not None:
            raise BridgeError(
                "a run that merges otherargs can't be resumed: the changes that finished blocks "
                "have made to the otherargs are lost"
            )
        unfinished = [column for sink in self._sinks.values() for column in sink.resume()]
        self._resumed = bool(unfinished)
        return unfinished

    # ---- the blocks

    def do(self, remaining: list[Span], blocks: int, progress: Progress) -> None:
        """Process the remaining blocks, and complete the outputs."""
        progress.report((blocks - len(remaining)) / max(1, blocks))
        self._starts = [span.start for span in remaining] + [self._script.rows]
        self._certain = dict.fromkeys(self._sinks, self._starts[0])
        try:
            self._do(remaining, blocks, progress)
        except BaseException as error:
            self._on_error(error)
            raise
        try:
            self._complete()
        except INTERRUPTIONS as error:
            error.add_note(RESUME_NOTE)
            raise
        # The run is complete. If it raised an error, a script that changes a column in place would
        # be repeated.
        with suppress(CancelledError):
            progress.report(1.0)

    def _complete(self) -> None:
        """Complete the outputs."""
        sinks = self._sinks.values()
        for sink in sinks:
            sink.finish()
        written = {(sink.where, name) for sink in sinks for name in sink.columns}
        if written & self.reads and len(written) > 1:
            # A resumed run may process no block again as soon as one of these columns is complete:
            # the function would read its own results.
            for sink in sinks:
                sink.note(self._script.rows)
        for sink in sinks:
            sink.complete()

    def _on_error(self, error: BaseException) -> None:
        """Store the progress of each output, and add notes to the error."""
        if isinstance(error, ColumnIncompleteError) and self._resumed:
            error.add_note(
                "(a script that reads a column which it also writes can't be resumed, because "
                "changed rows can't be told from unchanged rows)"
            )
        for label, sink in self._sinks.items():
            # The progress is informational; the first error matters more.
            with suppress(RatZarrError):
                sink.note(self._certain.get(label, 0))
        if isinstance(error, INTERRUPTIONS) and any(s.written() for s in self._sinks.values()):
            error.add_note(RESUME_NOTE)

    def _do(self, remaining: list[Span], blocks: int, progress: Progress) -> None:
        if not remaining:
            return
        started = time.monotonic()
        mark = time.perf_counter()
        likely = self._likely(remaining[0])
        self.reading += time.perf_counter() - mark
        first = self._compute((remaining[0], likely))
        self._note_used(first)
        number, reading = 0, None
        with ExitStack() as stack:
            if self._executor.in_process:
                reading = self._read_ahead(remaining[1:], max(1, first.weight))
                stack.enter_context(closing(reading))
            # A thread keeps the memory that it has once used, so memory limits the threads.
            each = sum(weight(v) for one in first.outputs.values() for v in one.columns.values())
            writers = max(1, min(THREADS, self._controls.memory // max(1, each)))
            batches = self._batches(first, remaining, reading)
            stack.enter_context(closing(batches))
            written = write_behind(
                batches,
                self._write,
                threads=writers,
                behind=AHEAD,
                size=lambda batch: batch.weight,
                max_bytes=self._controls.memory,
            )
            mark = time.perf_counter()
            for _ in stack.enter_context(closing(written)):
                self._note_sometimes()
                number += 1
                if number <= len(remaining):
                    done = blocks - len(remaining) + number
                    left = _left(started, number, len(remaining))
                    progress.report(done / blocks, detail=f"block {done} of {blocks}{left}")
            # Time that was not spent on the blocks was spent waiting for writes.
            self.writing += max(0.0, time.perf_counter() - mark - self._inside)
        if reading is not None:
            self.reading += reading.waited

    def _likely(self, span: Span) -> Columns:
        """Read in parallel the first block of all columns that the function's code names.

        This is a guess. The function reads any other column when it uses it.
        """
        code = getattr(self._script.function, "__code__", None)
        words = set(getattr(code, "co_names", ())) | set(getattr(code, "co_consts", ()))

        def read(label: str) -> dict[str, Array]:
            source = self._sources[self._script.inputs[label]]
            names = [name for name in dict.fromkeys(source.names_known()) if name in words]
            # An unreadable column is an error only if the function uses it.
            with suppress(RatZarrError, BridgeError):
                return source.read(names, span.start, span.length) if names else {}
            return {}

        with ThreadPoolExecutor(THREADS, "first-block") as pool:
            return dict(zip(self._script.inputs, pool.map(read, self._script.inputs), strict=True))

    def _compute(self, pair: tuple[Span, Columns]) -> Computed:
        span, values = pair
        if not self._is_serial:
            return run_alone(self._script, self._sources, span, values, self._original)
        before = fingerprint_of(self._total) if self._resumed else b""
        computed = run_block(self._script, self._sources, span, values, self._total)
        if self._resumed and fingerprint_of(self._total) != before:
            raise BridgeError(
                "the function changes its otherargs, so the run can't be resumed: the changes that "
                "finished blocks have made to the otherargs are lost"
            )
        return computed

    def _read_ahead(self, spans: list[Span], guess: int) -> ReadAhead[Span, Columns]:
        max_bytes = self._controls.memory
        ahead = max(1, min(AHEAD, max_bytes // guess))

        def read(span: Span) -> Columns:
            return read_columns(self._sources, self._script, span, self._wanted(span.index))

        return ReadAhead(
            spans,
            read,
            threads=min(THREADS, ahead),
            ahead=ahead,
            size=lambda columns: sum(weight(v) for one in columns.values() for v in one.values()),
            max_bytes=max_bytes,
            guess=guess,
        )

    def _batches(
        self, first: Computed, remaining: list[Span], reading: ReadAhead[Span, Columns] | None
    ) -> Generator[tuple[_Batch, _Batch]]:
        """Yield the batches in order, as pairs for :func:`ratzarr.pipeline.write_behind`."""
        steps = self._steps(first, remaining, reading)
        with closing(steps):
            while True:
                mark = time.perf_counter()
                batch = next(steps, None)
                self._inside += time.perf_counter() - mark
                if batch is None:
                    return
                yield batch, batch

    def _steps(
        self, first: Computed, remaining: list[Span], reading: ReadAhead[Span, Columns] | None
    ) -> Generator[_Batch]:
        yield self._placed(first, 0)
        workers = self._executor.workers
        if reading is not None:
            results = self._executor.results(self._compute, reading, ahead=workers + 1)
        else:
            results = self._executor.results(self._task(), remaining[1:])
        with ExitStack() as stack:
            if (close := getattr(results, "close", None)) is not None:
                stack.callback(close)
            for number, computed in enumerate(results, 1):
                self._note_used(computed)
                yield self._placed(computed, number)
        writes = [write for sink in self._sinks.values() for write in sink.rest()]
        rows = self._script.rows
        certain = {label: sink.certain(rows) for label, sink in self._sinks.items()}
        yield _Batch(remaining[-1], len(remaining), writes, certain)

    def _task(self) -> BlockTask:
        self._direct = {
            label: DirectTable(sink.name, sink.where, sink.options, sink.columns)
            for label, sink in self._sinks.items()
            if sink.is_direct
        }
        return BlockTask(
            uuid.uuid4().hex,
            self._script,
            self._controls.useStringDType,
            dict(self._ours),
            self._wanted(0),
            self._direct,
            frozenset(label for label, sink in self._sinks.items() if not sink.columns),
            self._original,
        )

    def _note_used(self, computed: Computed) -> None:
        self.reads |= computed.reads
        for label, names in computed.used.items():
            for name in names:
                self._used[label][name] = computed.span.index

    def _placed(self, computed: Computed, number: int) -> _Batch:
        """Merge a block's otherargs, and assign its results to rows of the outputs."""
        span = computed.span
        self.reading += computed.reading
        self.computing += computed.computing
        self.writing += computed.writing
        mark = time.perf_counter()
        with noted(span):
            self._merge(computed)
            writes: list[Write] = []
            for label, block in computed.outputs.items():
                sink = self._sinks[label]
                if label in computed.written:
                    sink.account(span, block, computed.written[label])
                else:
                    if label in self._direct:
                        sink.only_whole_blocks(span, block.rows)
                    writes += sink.place(span, block)
        # The time includes creating tables and columns.
        self.writing += time.perf_counter() - mark
        done = self._starts[number + 1]
        certain = {label: sink.certain(done) for label, sink in self._sinks.items()}
        return _Batch(span, number, writes, certain)

    def _merge(self, computed: Computed) -> None:
        merge = self._controls.merge
        if merge is None or self._is_serial or not self._script.has_otherargs:
            return
        answer = merge(self._total, computed.otherargs)
        if answer is not None and answer is not self._total:
            raise BridgeError(
                "the merge function must change its first argument and return None or that "
                f"argument: it returned {answer!r:.80}"
            )

    def _write(self, item: _Batch, batch: _Batch) -> None:
        with noted(batch.span):
            for write in batch.writes:
                write()
            batch.writes = []
        with self._lock:
            # Batches count as written even if another one fails.
            self._done[batch.number] = batch.certain
            while self._next in self._done:
                self._certain |= self._done.pop(self._next)
                self._next += 1

    def _note_sometimes(self) -> None:
        if time.monotonic() - self._noted >= SECONDS:
            for label, rows in self._certain.copy().items():
                self._sinks[label].note(rows)
            self._noted = time.monotonic()


def _left(started: float, done: int, total: int) -> str:
    """Return text about the remaining time; empty at the end."""
    if done >= total:
        return ""
    seconds = (time.monotonic() - started) / done * (total - done)
    if seconds < 90:
        return f", about {max(1, round(seconds))} s left"
    minutes = round(seconds / 60)
    return f", about {minutes} min left" if minutes < 90 else f", about {minutes / 60:.1f} h left"
