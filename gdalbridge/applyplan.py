"""What is known of a script's run before its first block: tables, rows, block length."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from .applycontrols import Settings
from .applysinks import Sink
from .applysources import Source, Sources
from .errors import BlockError, BridgeError
from .gathering import chunk_rows_for
from .ratassociations import Handle, RatHandle

__all__ = ["lengths", "open_tables", "row_count"]

THREADS = 16


def open_tables(
    inputs: dict[str, Handle], outputs: dict[str, Handle], sources: Sources
) -> dict[str, Sink]:
    """Open all tables, those that are stores at the same time."""
    with ThreadPoolExecutor(THREADS, "open") as pool:
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
        # Two rasters in one bucket with different settings are an error in one thread, and
        # would wait for each other in two.
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
    """Return the usages of a raster's own columns, of an input where it is one of them."""
    for one in inputs.values():
        if isinstance(one, RatHandle) and one.same_band(handle):
            return sources[one].own_usages()
    return sources[handle].own_usages()


def row_count(settings: Settings, inputs: Mapping[str, Source]) -> int:
    """Return how many rows are worked through.

    Raises
    ------
    BlockError, BridgeError
        Where the inputs don't agree, or nothing says so.
    """
    counts = {label: source.rows for label, source in inputs.items()}
    listed = ", ".join(f"{label} ({inputs[label].name}) has {n}" for label, n in counts.items())
    if settings.rows is not None:
        if any(count < settings.rows for count in counts.values()):
            raise BlockError(f"{settings.rows} rows are to be worked through, and {listed}")
        return settings.rows
    if not counts:
        raise BridgeError(
            "there is no input, so nobody knows how many rows there are: controls.setRowCount(...)"
        )
    if len(set(counts.values())) > 1:
        raise BlockError(
            f"the inputs have different numbers of rows: {listed}. controls.setRowCount(n) works "
            "through the first n of each"
        )
    return next(iter(counts.values()))


def lengths(
    settings: Settings, rows: int, sinks: Mapping[str, Sink], inputs: Mapping[str, Source]
) -> tuple[int, int]:
    """Return the block length, and the chunk size of tables that are to be created."""
    there = [chunk for sink in sinks.values() if (chunk := sink.chunk_rows)]
    usual = max([one.chunk_rows or 0 for one in inputs.values()], default=0)
    chunk = chunk_rows_for(settings.block_rows, rows, max(there, default=usual) or None)
    if settings.block_rows is not None:
        return settings.block_rows, chunk
    return max([*there, chunk] if len(there) < len(sinks) else there, default=chunk), chunk
