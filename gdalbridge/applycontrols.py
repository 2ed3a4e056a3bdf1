"""How a script is run: block length, rows, progress, executor, what happens at the end.

>>> controls = RatApplierControls()
>>> controls.setBlockLength(200_000)
>>> controls.setExecutor("threads", workers=2)
>>> controls.settings().block_rows
200000
"""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import BridgeError

__all__ = ["RCM_EQUALS_INPUT", "RCM_FIXED", "RCM_INCREMENT", "RatApplierControls", "Settings"]

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
            :func:`gdalbridge.executors.make_executor` made, to use it for several scripts.
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
