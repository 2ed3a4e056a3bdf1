"""The arguments of ``apply``, and the report that it returns."""

import copy
import hashlib
import operator
import os
import pickle
from collections.abc import Callable, KeysView, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

from gdalbridge.copying.report import Report
from gdalbridge.errors import BridgeError, ExecutorError
from gdalbridge.gdalio.read_options import ReadOptions
from gdalbridge.sidecars.naming import SUFFIX

__all__ = [
    "RCM_EQUALS_INPUT",
    "RCM_FIXED",
    "RCM_INCREMENT",
    "ApplyReport",
    "Handle",
    "OtherArguments",
    "RatApplierControls",
    "RatAssociations",
    "RatHandle",
    "RatZarrHandle",
    "fingerprint_of",
    "fresh_copy",
]


def _name(value: Any, kind: str) -> str:
    try:
        name = os.fspath(value)
    except TypeError:
        name = None
    if not isinstance(name, str) or not name:
        raise BridgeError(
            f"{kind} takes the name of a table, because other processes may have to open it: "
            f"got {value!r}"
        )
    return name


@dataclass(frozen=True, slots=True)
class RatHandle:
    """A raster's table: its own columns and those of its sidecars. Only sidecars are written.

    Parameters
    ----------
    filename : str or os.PathLike
        A path, URL or ``/vsi`` name.
    layernum : int
        The band, counted from 1.
    table : str, optional
        Name of the sidecar to write, if the band has several. By default the band's first.
    storageOptions : mapping, optional
        See :class:`ratzarr.RatZarr`.
    encoding : str, optional
        Encoding of text and names in the raster's own table. By default UTF-8, or the
        encoding that its ``.vat.dbf`` declares.
    lossy : bool
        Read the raster's own table even if GDAL has lost or altered values of it.
    """

    filename: str
    layernum: int = 1
    table: str | None = field(default=None, kw_only=True)
    storageOptions: Mapping[str, Any] | None = field(
        default=None, kw_only=True, compare=False, repr=False
    )
    encoding: str | None = field(default=None, kw_only=True)
    lossy: bool = field(default=False, kw_only=True)

    @property
    def reading(self) -> ReadOptions:
        """Options for reading the raster's own table."""
        return ReadOptions(self.encoding, self.lossy)

    def __post_init__(self) -> None:
        name = _name(self.filename, "RatHandle")
        if name.rstrip("/").endswith(SUFFIX):
            raise BridgeError(f"{name} is a sidecar, or a table like one: RatZarrHandle({name!r})")
        object.__setattr__(self, "filename", name)
        # Raise an error for an unknown encoding now, not when the table is read.
        self.reading  # noqa: B018 - the property checks the encoding

    def same_band(self, other: "RatHandle") -> bool:
        """Return True if both handles name the same band of the same raster."""
        return (self.filename, self.layernum) == (other.filename, other.layernum)


@dataclass(frozen=True, slots=True)
class RatZarrHandle:
    """A RatZarr table by its own name, such as a stand-alone table or a sidecar.

    Parameters
    ----------
    filename : str or os.PathLike
        A path or URL.
    storageOptions : mapping, optional
        See :class:`ratzarr.RatZarr`.
    """

    filename: str
    storageOptions: Mapping[str, Any] | None = field(
        default=None, kw_only=True, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "filename", _name(self.filename, "RatZarrHandle"))


type Handle = RatHandle | RatZarrHandle


class RatAssociations:
    """The input tables, or the output tables, of a script. Each attribute is a handle."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not isinstance(value, RatHandle | RatZarrHandle):
            raise BridgeError(
                f"{name} must be a table: expected a RatHandle or a RatZarrHandle, got {value!r}"
            )
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no table {name!r}; the tables are {list(self.__dict__)}")

    def getRatList(self) -> KeysView[str]:
        """Return the names of the tables."""
        return self.__dict__.keys()

    def handles(self) -> dict[str, Handle]:
        """Return the handles by name."""
        return dict(self.__dict__)

    def __repr__(self) -> str:
        pairs = ", ".join(f"{name}={handle!r}" for name, handle in self.__dict__.items())
        return f"RatAssociations({pairs})"


class OtherArguments:
    """Further arguments for the user's function, as attributes."""

    def __repr__(self) -> str:
        return f"OtherArguments({', '.join(self.__dict__)})"


def fresh_copy(otherargs: Any) -> Any:
    """Return a copy that shares nothing with the original.

    Raises
    ------
    ExecutorError
        If the object can't be copied.
    """
    if otherargs is None:
        return None
    try:
        return copy.deepcopy(otherargs)
    except Exception as error:
        raise ExecutorError(
            f"the otherargs can't be copied, but each parallel block needs a copy: {error}. Use "
            'setExecutor("serial"), which needs no copies.'
        ) from error


def fingerprint_of(otherargs: Any) -> bytes:
    """Return a hash that differs if the object has changed since an earlier call.

    Raises
    ------
    ExecutorError
        If the object can't be pickled.
    """
    if otherargs is None:
        return b""
    digest, buffers = hashlib.blake2b(digest_size=16), list[pickle.PickleBuffer]()
    try:
        pickled = pickle.dumps(otherargs, protocol=5, buffer_callback=buffers.append)
    except Exception as error:
        buffers.clear()
        pickled = _by_value(otherargs, error)
    digest.update(pickled)
    for buffer in buffers:
        digest.update(buffer.raw())
    return digest.digest()


def _by_value(otherargs: Any, reason: Exception) -> bytes:
    """Pickle objects of classes that are defined in a function or a notebook."""
    try:
        import cloudpickle

        pickled: bytes = cloudpickle.dumps(otherargs)
    except Exception as error:
        if not isinstance(error, ImportError):
            reason = error
        raise ExecutorError(
            "the otherargs can't be pickled, so apply can't tell if the function changes them: "
            f"{reason}. Merge the changes with setMerge(...), or run the blocks in turn with "
            'setExecutor("serial").'
        ) from reason
    return pickled


@dataclass(frozen=True, slots=True)
class ApplyReport(Report):
    """A summary of one run of :func:`~gdalbridge.ratapplier.apply`.

    >>> print(ApplyReport(5000, 50, 0, ("seg.tif.rat.zarr",), "serial", 1, 2.0, 0.1, 1.5, 0.3))
    5000 rows in 50 blocks, 2.00 s (serial)
    waiting for reads    0.10 s
    computing            1.50 s
    waiting for writes   0.30 s
    written: seg.tif.rat.zarr
    """

    rows: int
    """Rows of all blocks."""
    blocks: int
    """All blocks, including those of an interrupted earlier run."""
    blocks_there: int
    """Blocks that an interrupted earlier run had done."""
    written: tuple[str, ...]
    """Names of the tables written to."""
    executor: str
    workers: int
    seconds: float
    """Duration of the run."""
    reading: float
    """Seconds that blocks waited for their columns, summed over all workers."""
    computing: float
    """Seconds in the function, summed over all workers."""
    writing: float
    """Seconds that the run waited for blocks to be written."""

    def formatReport(self) -> str:
        """Return the report as text."""
        workers = f", {self.workers} workers" if self.workers > 1 else ""
        how = f"{self.executor}{workers}"
        lines = [f"{self.rows} rows in {self.blocks} blocks, {self.seconds:.2f} s ({how})"]
        if self.blocks_there:
            lines[0] += f"; {self.blocks_there} of the blocks were done before"
        for what, seconds in self._times():
            lines.append(f"{what:<20} {seconds:.2f} s")
        lines += [f"written: {name}" for name in self.written]
        return "\n".join(lines)

    def _times(self) -> list[tuple[str, float]]:
        return [
            ("waiting for reads", self.reading),
            ("computing", self.computing),
            ("waiting for writes", self.writing),
        ]

    def __str__(self) -> str:
        return self.formatReport()

    def _repr_html_(self) -> str:
        head, *rest = self.formatReport().splitlines()
        rows = "".join(
            f"<tr><td style='text-align:left'>{what}</td><td>{seconds:.2f} s</td></tr>"
            for what, seconds in self._times()
        )
        written = "".join(f"<div>{escape(line)}</div>" for line in rest[3:])
        return f"<div>{escape(head)}</div><table>{rows}</table>{written}"


RCM_EQUALS_INPUT = 0
"""An output table gets as many rows as the inputs have."""
RCM_FIXED = 1
"""An output table gets a fixed number of rows."""
RCM_INCREMENT = 2
"""An output table grows as rows are appended."""

MEMORY = 128 * 2**20
"""Bytes for blocks read ahead, and as many again for blocks not yet written."""


@dataclass(eq=False)
class RatApplierControls:
    """Options of :func:`~gdalbridge.ratapplier.apply`; each method sets one."""

    # Scripts for RIOS use the names of the first seven.
    blockLen: int | None = None
    rowCount: int | None = None
    outRowCountMethod: int = RCM_EQUALS_INPUT
    fixedOutRowCount: int | None = None
    rowCountIncrementSize: int | None = None
    progress: Any = None
    useStringDType: bool = False
    executor: Any = "serial"
    workers: int | None = None
    merge: Callable[[Any, Any], Any] | None = None
    resume: bool = False
    truncateOutput: bool = False
    memory: int = MEMORY

    def setBlockLength(self, blockLen: int | None) -> None:
        """Set the number of rows per block.

        The default is the chunk size of the output tables. Each block is then whole chunks, and
        workers write blocks in parallel. With any other length, rows are collected into whole
        chunks before they are written.
        """
        self.blockLen = blockLen

    def setRowCount(self, rowCount: int | None) -> None:
        """Set the number of rows to process: needed without inputs; else only the first rows."""
        self.rowCount = rowCount

    def outputRowCountHandling(
        self,
        method: int = RCM_EQUALS_INPUT,
        totalsize: int | None = None,
        incrementsize: int | None = None,
    ) -> None:
        """Set how many rows an output table may grow to.

        Parameters
        ----------
        method : int
            ``RCM_EQUALS_INPUT``: as many rows as the run processes. ``RCM_FIXED``:
            ``totalsize``. ``RCM_INCREMENT``: any number; rows are appended in the order of
            the blocks, even if blocks run in parallel.
        totalsize : int, optional
            Number of rows for ``RCM_FIXED``.
        incrementsize : int, optional
            Smallest number of rows by which ``RCM_INCREMENT`` grows a table at a time. Unused
            rows are removed at the end.
        """
        self.outRowCountMethod = method
        self.fixedOutRowCount = totalsize
        self.rowCountIncrementSize = incrementsize

    def setProgress(self, progress: Any) -> None:
        """Set a progress object or function, which may also cancel: see :mod:`gdalbridge.progress`."""
        self.progress = progress

    def setUseStringDType(self, useStringDType: bool) -> None:
        """Set whether text of rasters (:class:`RatHandle`) is read as numpy's StringDType.

        By default it is read as UTF-8 bytes of fixed width, as GDAL returns it.
        """
        self.useStringDType = useStringDType

    def setExecutor(self, executor: Any, workers: int | None = None) -> None:
        """Set where the function runs.

        Parameters
        ----------
        executor : str or object
            ``"serial"``, ``"threads"``, ``"processes"``, ``"dask"``, a Dask client, or the
            address of a Dask scheduler. To use one executor for several scripts, pass the
            result of :func:`gdalbridge.apply.executors.make_executor`.
        workers : int, optional
            Number of blocks to process at once.
        """
        self.executor = executor
        self.workers = workers

    def setMerge(self, merge: Callable[[Any, Any], Any] | None) -> None:
        """Set how to merge the changes that parallel blocks make to the otherargs.

        Parameters
        ----------
        merge : callable
            ``merge(total, of_block)`` updates ``total``, the otherargs passed to ``apply``, in
            place. ``of_block`` is a block's copy of the original otherargs, as the function has
            changed it. The calls are made one at a time, in the order of the blocks.
        """
        self.merge = merge

    def setResume(self, resume: bool = True) -> None:
        """Set whether to resume an interrupted run of the same script."""
        self.resume = resume

    def setTruncateOutput(self, truncate: bool = True) -> None:
        """Set whether to cut an output table to the rows written, if it had more before."""
        self.truncateOutput = truncate

    def setMemory(self, nbytes: int) -> None:
        """Set the bytes of memory for blocks read ahead, and as many for unwritten blocks."""
        self.memory = nbytes

    def checked(self) -> "RatApplierControls":
        """Return a copy with checked values.

        Raises
        ------
        BridgeError
            For an invalid value.
        """
        method = self.outRowCountMethod
        if method not in (RCM_EQUALS_INPUT, RCM_FIXED, RCM_INCREMENT):
            raise BridgeError(
                "the row count method must be RCM_EQUALS_INPUT, RCM_FIXED or RCM_INCREMENT: got "
                f"{method!r}"
            )
        if self.merge is not None and not callable(self.merge):
            raise BridgeError(f"the merge must be a function of two otherargs: got {self.merge!r}")
        found = copy.copy(self)
        found.blockLen = _integer(self.blockLen, "the block length", 1)
        found.rowCount = _integer(self.rowCount, "the row count", 0)
        found.fixedOutRowCount = _integer(self.fixedOutRowCount, "totalsize", 0)
        found.rowCountIncrementSize = _integer(self.rowCountIncrementSize, "incrementsize", 1)
        found.workers = _integer(self.workers, "the number of workers", 1)
        found.memory = _integer(self.memory, "the memory", 1) or MEMORY
        if method == RCM_FIXED and found.fixedOutRowCount is None:
            raise BridgeError("RCM_FIXED needs totalsize, the number of rows")
        return found


def _integer(value: Any, name: str, minimum: int) -> int | None:
    if value is None:
        return None
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        # RIOS accepts whole floats such as 1e6, or the quotient 200000.0.
        if not isinstance(value, float) or not value.is_integer():
            raise BridgeError(f"{name} must be an integer: got {value!r}") from None
        number = int(value)
    if number < minimum:
        raise BridgeError(f"{name} must be an integer >= {minimum}: got {value!r}")
    return number
