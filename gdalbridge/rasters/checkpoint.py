"""Checkpoints of a long pass over pixels, from which a killed run is resumed.

A run accumulates in memory while it reads the pixels, and writes its columns afterwards. From time
to time it saves its accumulators to a directory beside the table, on S3 below a prefix. Each save
writes new objects, then the document that names them, then removes the earlier ones: a run that is
killed at any moment leaves a whole checkpoint. A complete run removes it.

>>> import tempfile
>>> import numpy as np
>>> place = tempfile.mkdtemp() + "/seg.tif.rat.zarr.checkpoint"
>>> with Checkpoint(place, {"options": {}}, 60) as run:
...     run.save("sums", {"windows": 3}, [("count", np.arange(4))])
...     with Checkpoint(place, {"options": {}}, 60) as later:
...         later.resume("seg.tif")
...         saved = later["sums"]
...         saved.state, [(name, values.tolist()) for name, values in saved.pieces()]
({'windows': 3}, [('count', [0, 1, 2, 3])])
"""

import hashlib
import json
import os
import time
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numcodecs import Blosc
from numpy.typing import NDArray

from gdalbridge.errors import BridgeError, CancelledError, GdalError, LossWarning
from gdalbridge.gdalio.pixels import Pixels
from gdalbridge.sidecars.provenance import pixel_files
from gdalbridge.sidecars.staleness import file_changes
from ratzarr import DamagedError, RatZarrError, StoreError
from ratzarr.errors import Advice
from ratzarr.pipeline import IN_FLIGHT_BYTES, memory_of, write_behind
from ratzarr.stores import Objects, open_objects, parse

__all__ = [
    "SECONDS",
    "Checkpoint",
    "Saved",
    "checkpoint_place",
    "job_input",
    "pieces_of",
    "remove_checkpoint",
]

Array = NDArray[Any]

SECONDS = 60.0
"""Seconds between checkpoints, by default."""
SHARE = 0.05
"""The largest share of a run's time that checkpoints take."""
INTERRUPTIONS = (CancelledError, KeyboardInterrupt, StoreError, GdalError)
"""Errors after which the same run can be resumed. GDAL's errors mostly come from the connection."""
DOCUMENT = "checkpoint.json"
PIECE_ROWS = 2**20
THREADS = 8


@dataclass(frozen=True, slots=True)
class Saved:
    """A saved part of a run: its state, and arrays in pieces."""

    state: Mapping[str, Any]
    described: list[list[Any]]
    checkpoint: "Checkpoint"

    def pieces(self) -> Iterator[tuple[str, Array]]:
        """Yield the pieces with the names of their arrays, in the order in which they were saved.

        Raises
        ------
        DamagedError
            If a piece is missing, or has other bytes than were written.
        """
        for name, key, dtype, crc in self.described:
            yield name, self.checkpoint.read(key, dtype, crc)


def pieces_of(arrays: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    """Yield arrays in pieces, for :meth:`Checkpoint.save`."""
    for name, values in arrays.items():
        for first in range(0, len(values), PIECE_ROWS):
            yield name, values[first : first + PIECE_ROWS]


def checkpoint_place(target: Any, operation: str, names: Iterable[str]) -> str | None:
    """Return the place of a run's checkpoint: beside its table, a name of its own for each run.

    Parameters
    ----------
    target : str, os.PathLike or zarr store
        The table.
    operation : str
        ``build`` or ``zonal``.
    names : iterable of str
        What the run writes. Runs that write other columns may work at the same time.

    Returns
    -------
    str or None
        None for a store without a name.
    """
    if not isinstance(target, str | os.PathLike):
        return None
    key = hashlib.sha256(json.dumps(list(names)).encode()).hexdigest()[:8]
    return f"{os.fspath(target).rstrip('/')}.{operation}-{key}.checkpoint"


def job_input(pixels: Pixels) -> dict[str, Any]:
    """Describe a raster that a run reads, ready for JSON; its files tell if it has changed."""
    name = pixels.name.partition("?")[0].rstrip("/").rpartition("/")[2]
    return {"name": name, "files": pixel_files(pixels.dataset)}


class Checkpoint:
    """The saved state of one run; a context manager.

    At the end of the run the checkpoint is removed, also one that an earlier run of the same
    columns has left. After an interruption it stays, and the error says how to resume. After any
    other error it is removed, if this run has saved it.

    Parameters
    ----------
    place : str or None
        See :func:`checkpoint_place`.
    job : mapping
        What the run reads and how, ready for JSON: ``inputs`` from :func:`job_input`, and
        ``options``. A run is resumed only if it is the same.
    seconds : float
        Seconds between two checkpoints, more if saving takes long; 0 for none.
    storage_options : mapping, optional
        See :class:`ratzarr.RatZarr`.
    """

    def __init__(
        self,
        place: str | None,
        job: Mapping[str, Any],
        seconds: float,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._job: dict[str, Any] = json.loads(json.dumps(job))
        self._objects = None if place is None else open_objects(parse(place), storage_options)
        # A raster in memory is gone with its process.
        are_files = all(one["files"] is not None for one in self._job.get("inputs", []))
        self._seconds = seconds if self._objects is not None and are_files else 0
        self._next = time.monotonic() + seconds
        self._parts: dict[str, dict[str, Any]] = {}
        self._serial = 0
        self._is_mine = False
        """True if the checkpoint is one of this run, or of the one that it continues."""
        self._has_saved = False

    @property
    def digest(self) -> str:
        """A digest of the job, by which columns of the same job are known."""
        return hashlib.sha256(json.dumps(self._job, sort_keys=True).encode()).hexdigest()[:16]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self._remove_all()
        elif self.keeps(error):
            error.add_note(
                Advice(
                    f"The finished part stays in {self._location}.", "Use resume=True to continue."
                )
            )
        elif self._has_saved:
            with suppress(RatZarrError):
                self._remove_all()

    @property
    def _location(self) -> str:
        return "" if self._objects is None else str(self._objects.location)

    def keeps(self, error: BaseException) -> bool:
        """Return True if a run that ended with this error can be resumed from here."""
        return bool(self._parts) and isinstance(error, INTERRUPTIONS)

    # ---- beginning

    def resume(self, target: str) -> None:
        """Continue from the checkpoint of an interrupted run, if one exists.

        Parameters
        ----------
        target : str
            The table that is written, for messages.

        Raises
        ------
        BridgeError
            If the job is another one, or an input is not a file; names what differs.
        """
        unnamed = [one["name"] for one in self._job.get("inputs", []) if one["files"] is None]
        if unnamed:
            raise BridgeError(
                f"{unnamed[0] or 'a raster in memory'} is not a file, so its changes can't be "
                "detected, and the run can't be resumed"
            )
        if self._objects is None:
            raise BridgeError(f"{target} has no name, so a run that writes it can't be resumed")
        data = self._objects.get(DOCUMENT)
        if data is None:
            return
        found = _parsed(data)
        if found is None:
            raise DamagedError(f"{self._location}/{DOCUMENT} is damaged")
        if found["job"] != self._job:
            raise BridgeError(
                Advice(
                    f"{target}: the interrupted run can't be resumed: "
                    f"{'; '.join(_differences(found['job'], self._job))}.",
                    "Without resume=True, it starts again.",
                )
            )
        self._parts, self._serial, self._is_mine = found["parts"], found["serial"], True

    def __getitem__(self, part: str) -> Saved | None:
        """Return a part of the run as it was saved; None if there is none."""
        found = self._parts.get(part)
        return None if found is None else Saved(found["state"], found["pieces"], self)

    def read(self, key: str, dtype: str, crc: int) -> Array:
        """Return a piece: see :meth:`Saved.pieces`."""
        data = None if self._objects is None else self._objects.get(key)
        if data is None or zlib.crc32(data) != crc:
            what = "is missing" if data is None else "is damaged"
            raise DamagedError(f"{self._location}/{key} {what}")
        return np.frombuffer(Blosc().decode(data), dtype)

    # ---- saving

    def is_due(self) -> bool:
        """Return True if it is time to save."""
        return self._seconds > 0 and time.monotonic() >= self._next

    def save(
        self, part: str, state: Mapping[str, Any], pieces: Iterable[tuple[str, Array]]
    ) -> None:
        """Save a part of the run in place of its earlier state.

        Parameters
        ----------
        part : str
        state : mapping
            Ready for JSON.
        pieces : iterable of (str, ndarray)
            Consecutive pieces of arrays, with the arrays' names.

        Warns
        -----
        LossWarning
            If it can't be written. The run goes on without checkpoints.
        """
        if self._objects is None:
            return
        started = time.monotonic()
        self._serial += 1
        begun: list[str] = []
        try:
            if not self._is_mine:
                self._remove_all()
                self._is_mine = True
            described = self._write(pieces, begun)
            parts = self._parts | {part: {"state": dict(state), "pieces": described}}
            document = {"job": self._job, "parts": parts, "serial": self._serial}
            self._objects.put(DOCUMENT, json.dumps(document).encode())
        except RatZarrError as error:
            with suppress(RatZarrError):
                self._objects.delete(begun)
            warnings.warn(
                f"no checkpoint can be written to {self._location}, so a run that is interrupted "
                f"can't be resumed from here: {error}",
                LossWarning,
                stacklevel=3,
            )
            self._seconds = 0
            return
        before = self._parts.get(part, {"pieces": []})
        self._parts, self._has_saved = parts, True
        self._objects.delete([key for _, key, _, _ in before["pieces"]])
        now = time.monotonic()
        self._next = now + max(self._seconds, (now - started) / SHARE)

    def _write(self, pieces: Iterable[tuple[str, Array]], begun: list[str]) -> list[list[Any]]:
        objects, described = self._objects, dict[str, list[Any]]()

        def write(item: tuple[str, str], values: Array) -> None:
            name, key = item
            data = bytes(Blosc("lz4", 5, Blosc.SHUFFLE).encode(np.ascontiguousarray(values)))
            described[key] = [name, key, values.dtype.str, zlib.crc32(data)]
            if objects is not None:
                objects.put(key, data)

        def numbered() -> Iterator[tuple[tuple[str, str], Array]]:
            for number, (name, values) in enumerate(pieces):
                begun.append(f"{self._serial}/{number}")
                yield (name, begun[-1]), values

        for _ in write_behind(
            numbered(),
            write,
            threads=THREADS,
            behind=THREADS,
            size=memory_of,
            max_bytes=IN_FLIGHT_BYTES,
        ):
            pass
        return [described[key] for key in begun]

    def _remove_all(self) -> None:
        if self._objects is not None:
            _remove(self._objects)


def remove_checkpoint(place: str, storage_options: Mapping[str, Any] | None = None) -> None:
    """Remove what an interrupted run has left at :func:`checkpoint_place`."""
    _remove(open_objects(parse(place), storage_options))


def _remove(objects: Objects) -> None:
    if objects.occupied():
        # The document first: without it, the pieces are remains that the next run removes.
        objects.delete([DOCUMENT])
        objects.delete(list(objects.list_tree("")))
        objects.remove_place()


def _parsed(data: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(data)
        for part in found["parts"].values():
            part["state"], part["pieces"]
        return found if isinstance(found["job"], dict) and found["serial"] >= 0 else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe how two jobs differ."""
    before, after = (one.get("inputs", []) for one in (then, now))
    names = [[one["name"] for one in each] for each in (before, after)]
    if names[0] != names[1]:
        return [f"it is of {', '.join(names[1])}, and was of {', '.join(names[0])}"]
    words = [
        f"{one['name']} has changed: {change}"
        for one, was in zip(after, before, strict=True)
        for change in file_changes(was["files"], one["files"])[:1]
    ]
    options, earlier = now["options"], then.get("options", {})
    words += [
        f"{key} is {options.get(key)!r:.80}, and was {earlier.get(key)!r:.80}"
        for key in dict.fromkeys([*options, *earlier])
        if options.get(key) != earlier.get(key)
    ]
    return words or ["it was another run"]
