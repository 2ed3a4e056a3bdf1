"""The objects that a script hands to ``apply``, and the report that it gets back."""

import copy
import hashlib
import operator
import os
import pickle
from collections.abc import Callable, KeysView, Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

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
    "Settings",
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
            f"{kind} takes the name of a table, as it may have to be opened in another process: "
            f"got {value!r}"
        )
    return name


@dataclass(frozen=True, slots=True)
class RatHandle:
    """A raster's table: its own columns and its sidecars', as one. Written is the sidecar.

    Parameters
    ----------
    filename : str or os.PathLike
        A path, URL or ``/vsi`` name.
    layernum : int
        The band, counted from 1.
    table : str, optional
        The further table (of columns grouped by theme) that is written; by default the
        band's first.
    storageOptions : mapping, optional
        See :class:`ratzarr.RatZarr`.
    encoding : str, optional
        Of text and names in the raster's own table; by default UTF-8, or as its
        ``.vat.dbf`` declares.
    lossy : bool
        Read the raster's own table also where GDAL lost or altered values of it.
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
        """How the raster's own table is read."""
        return ReadOptions(self.encoding, self.lossy)

    def __post_init__(self) -> None:
        name = _name(self.filename, "RatHandle")
        if name.rstrip("/").endswith(SUFFIX):
            raise BridgeError(f"{name} is a sidecar, or a table like one: RatZarrHandle({name!r})")
        object.__setattr__(self, "filename", name)
        # An unknown encoding is refused where the handle is made.
        self.reading  # noqa: B018

    def same_band(self, other: "RatHandle") -> bool:
        """Return whether both are of one band of one raster."""
        return (self.filename, self.layernum) == (other.filename, other.layernum)


@dataclass(frozen=True, slots=True)
class RatZarrHandle:
    """A table that is a store by itself: any RatZarr, a sidecar too.

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
    """The tables that are read, or those that are written: each attribute is a handle."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not isinstance(value, RatHandle | RatZarrHandle):
            raise BridgeError(
                f"{name} is to be a table: expected a RatHandle or a RatZarrHandle, got {value!r}"
            )
        object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"there is no table {name!r}; there are {list(self.__dict__)}")

    def getRatList(self) -> KeysView[str]:
        """Return the names."""
        return self.__dict__.keys()

    def handles(self) -> dict[str, Handle]:
        """Return the handles by their names."""
        return dict(self.__dict__)

    def __repr__(self) -> str:
        pairs = ", ".join(f"{name}={handle!r}" for name, handle in self.__dict__.items())
        return f"RatAssociations({pairs})"


class OtherArguments:
    """Whatever a function is to be given besides the tables, as attributes."""

    def __repr__(self) -> str:
        return f"OtherArguments({', '.join(self.__dict__)})"


def fresh_copy(otherargs: Any) -> Any:
    """Return a copy that shares nothing with the original.

    Raises
    ------
    ExecutorError
        Where there can be none.
    """
    if otherargs is None:
        return None
    try:
        return copy.deepcopy(otherargs)
    except Exception as error:
        raise ExecutorError(
            "the otherargs can't be copied, and each block that is worked on beside others needs "
            f'a copy: {error}; setExecutor("serial") needs none'
        ) from error


def fingerprint_of(otherargs: Any) -> bytes:
    """Return what is another if the same object has been changed in between.

    Raises
    ------
    ExecutorError
        Where it can't be known.
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
    """Pickle what is of a function's or a notebook's own classes."""
    try:
        import cloudpickle
    except ImportError:
        raise _unknown(reason) from reason
    try:
        pickled: bytes = cloudpickle.dumps(otherargs)
    except Exception as error:
        raise _unknown(error) from error
    return pickled


def _unknown(reason: Exception) -> ExecutorError:
    return ExecutorError(
        "the otherargs can't be pickled, so nobody knows whether the function changes them: "
        f'{reason}; setMerge(...) says what becomes of changes, setExecutor("serial") runs the '
        "blocks one after another"
    )


@dataclass(frozen=True, slots=True)
class ApplyReport:
    """What :func:`~gdalbridge.ratapplier.apply` did.

    >>> print(ApplyReport(5000, 50, 0, ("seg.tif.rat.zarr",), "serial", 1, 2.0, 0.1, 1.5, 0.3))
    5000 rows in 50 blocks, 2.00 s (serial)
    waiting for reads    0.10 s
    computing            1.50 s
    waiting for writes   0.30 s
    written: seg.tif.rat.zarr
    """

    rows: int
    """Rows that were worked through."""
    blocks: int
    """Blocks they are, with those of before."""
    blocks_there: int
    """Of them, what an interrupted run had done before."""
    written: tuple[str, ...]
    """Tables that were written to."""
    executor: str
    workers: int
    seconds: float
    """From beginning to end."""
    reading: float
    """Seconds in which a block waited for its columns; of all workers together."""
    computing: float
    """Seconds in the function, of all workers together."""
    writing: float
    """Seconds in which work waited for blocks to be written."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON would have it."""
        return asdict(self)

    def formatReport(self) -> str:
        """Return it as text."""
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
"""An output table gets a number of rows that is known beforehand."""
RCM_INCREMENT = 2
"""An output table grows as rows are added to it."""

MEMORY = 128 * 2**20
"""Bytes for blocks that are read ahead, and as many for blocks that wait to be written."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the controls say, checked."""

    block_rows: int | None
    rows: int | None
    method: int
    total_rows: int | None
    increment: int | None
    progress: Any
    strings: bool
    """Whether text of rasters is StringDType."""
    executor: Any
    workers: int | None
    merge: Callable[[Any, Any], Any] | None
    resume: bool
    truncate: bool
    memory: int


class RatApplierControls:
    """How :func:`~gdalbridge.ratapplier.apply` works; see the methods."""

    def __init__(self) -> None:
        # The names of these first seven are those that scripts for RIOS use.
        self.blockLen: int | None = None
        self.rowCount: int | None = None
        self.outRowCountMethod = RCM_EQUALS_INPUT
        self.fixedOutRowCount: int | None = None
        self.rowCountIncrementSize: int | None = None
        self.progress: Any = None
        self.useStringDType = False
        self.executor: Any = "serial"
        self.workers: int | None = None
        self.merge: Callable[[Any, Any], Any] | None = None
        self.resume = False
        self.truncateOutput = False
        self.memory = MEMORY

    def setBlockLength(self, blockLen: int | None) -> None:
        """Set the number of rows per block.

        By default the chunk size of the tables that are written, so that each block is
        whole chunks: then blocks are written once, and in parallel. With any other length
        rows are gathered to whole chunks before they are written.
        """
        self.blockLen = blockLen

    def setRowCount(self, rowCount: int | None) -> None:
        """Set how many rows are worked through, where no input says so, or only the first."""
        self.rowCount = rowCount

    def outputRowCountHandling(
        self,
        method: int = RCM_EQUALS_INPUT,
        totalsize: int | None = None,
        incrementsize: int | None = None,
    ) -> None:
        """Set how many rows an output table may have that gets more than it has.

        Parameters
        ----------
        method : int
            ``RCM_EQUALS_INPUT``: as many as are worked through. ``RCM_FIXED``:
            ``totalsize``. ``RCM_INCREMENT``: any number; rows are added in the order of
            the blocks, also where blocks are worked on in parallel.
        totalsize : int, optional
            For ``RCM_FIXED``.
        incrementsize : int, optional
            For ``RCM_INCREMENT``: by how many rows a table grows at a time, at least. (What
            was too much is taken back at the end.)
        """
        self.outRowCountMethod = method
        self.fixedOutRowCount = totalsize
        self.rowCountIncrementSize = incrementsize

    def setProgress(self, progress: Any) -> None:
        """Set who is told of the progress, and may cancel: see :mod:`gdalbridge.progress`."""
        self.progress = progress

    def setUseStringDType(self, useStringDType: bool) -> None:
        """Set whether text of rasters (:class:`RatHandle`) comes as numpy's StringDType.

        By default it comes as bytes of fixed width, UTF-8, as GDAL hands it out.
        """
        self.useStringDType = useStringDType

    def setExecutor(self, executor: Any, workers: int | None = None) -> None:
        """Set where the function is run.

        Parameters
        ----------
        executor : str or object
            ``"serial"``, ``"threads"``, ``"processes"``, ``"dask"``, or a Dask client or the
            address of a scheduler; or what
            :func:`gdalbridge.apply.executors.make_executor` made, to use it for several scripts.
        workers : int, optional
            How many blocks are worked on at once.
        """
        self.executor = executor
        self.workers = workers

    def setMerge(self, merge: Callable[[Any, Any], Any] | None) -> None:
        """Set how otherargs that a function changes come together from parallel blocks.

        Parameters
        ----------
        merge : callable
            ``merge(total, of_block)`` changes ``total``, the otherargs that ``apply`` was
            given, by ``of_block``, what one block has made of a copy of them as they were
            at the beginning. It is called in the order of the blocks, one at a time.
        """
        self.merge = merge

    def setResume(self, resume: bool = True) -> None:
        """Set whether to go on with what the same script was interrupted in."""
        self.resume = resume

    def setTruncateOutput(self, truncate: bool = True) -> None:
        """Set whether an output table is cut to the rows written, where it had more before."""
        self.truncateOutput = truncate

    def setMemory(self, nbytes: int) -> None:
        """Set how many bytes blocks that are read ahead may take, and as many unwritten ones."""
        self.memory = nbytes

    def settings(self) -> Settings:
        """Return all of it, checked.

        Raises
        ------
        BridgeError
            For a value that can't be meant.
        """
        method = self.outRowCountMethod
        if method not in (RCM_EQUALS_INPUT, RCM_FIXED, RCM_INCREMENT):
            raise BridgeError(
                "the row count method is RCM_EQUALS_INPUT, RCM_FIXED or RCM_INCREMENT: got "
                f"{method!r}"
            )
        total = _integer(self.fixedOutRowCount, "totalsize", 0)
        if method == RCM_FIXED and total is None:
            raise BridgeError("RCM_FIXED needs totalsize, the number of rows")
        if self.merge is not None and not callable(self.merge):
            raise BridgeError(f"the merge is a function of two otherargs: got {self.merge!r}")
        return Settings(
            block_rows=_integer(self.blockLen, "the block length", 1),
            rows=_integer(self.rowCount, "the row count", 0),
            method=method,
            total_rows=total,
            increment=_integer(self.rowCountIncrementSize, "incrementsize", 1),
            progress=self.progress,
            strings=bool(self.useStringDType),
            executor=self.executor,
            workers=_integer(self.workers, "the number of workers", 1),
            merge=self.merge,
            resume=bool(self.resume),
            truncate=bool(self.truncateOutput),
            memory=_integer(self.memory, "the memory", 1) or MEMORY,
        )


def _integer(value: Any, what: str, least: int) -> int | None:
    if value is None:
        return None
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        # RIOS takes lengths that were divided: 1e6, 200000.0.
        if not isinstance(value, float) or not value.is_integer():
            raise BridgeError(f"{what} is an integer: got {value!r}") from None
        number = int(value)
    if number < least:
        raise BridgeError(f"{what} is an integer >= {least}: got {value!r}")
    return number
