"""The errors that gdalbridge raises. All are subclasses of :class:`BridgeError`."""

__all__ = [
    "BlockError",
    "BridgeError",
    "CancelledError",
    "ColumnMissingError",
    "ColumnSelectionError",
    "ConversionError",
    "ExecutorError",
    "GdalError",
    "GdalLossError",
    "GdalMissingError",
    "GdalWarning",
    "LossWarning",
    "NaNWarning",
    "NotSendableError",
    "NotWrittenError",
    "OutputExistsError",
    "PackageMissingError",
    "ProgramNotFoundError",
    "RasterNotFoundError",
    "SidecarNameError",
    "StaleError",
    "StaleWarning",
    "TaskError",
    "WorkerLostError",
]


class BridgeError(Exception):
    """Base class of all errors that gdalbridge raises."""


class BlockError(BridgeError, ValueError):
    """A block of rows whose length, shape or position does not fit its table."""


class CancelledError(BridgeError):
    """The progress callback or object cancelled the operation."""


class ColumnMissingError(BridgeError, AttributeError, KeyError):
    """A script requested a missing column of a table. ``hasattr`` is then False."""

    # KeyError would show the message in quotes.
    __str__ = Exception.__str__


class ColumnSelectionError(BridgeError, LookupError):
    """A requested column does not exist."""


class ConversionError(BridgeError, ValueError):
    """The other side cannot hold a value or a dtype exactly."""


class ExecutorError(BridgeError, RuntimeError):
    """The executor does not exist or cannot run the script."""


class GdalError(BridgeError, RuntimeError):
    """GDAL failed; the message is GDAL's."""


class GdalLossError(GdalError, ValueError):
    """GDAL lost or altered values of a raster's own table while reading it."""


class GdalMissingError(BridgeError, ImportError):
    """GDAL's Python bindings are not installed, or cannot be loaded."""


class NotSendableError(BridgeError, TypeError):
    """A function, a block or a result cannot be sent to another process."""


class NotWrittenError(BridgeError, OSError):
    """A raster cannot be written, or did not keep the written values."""


class OutputExistsError(BridgeError, FileExistsError):
    """The output already exists and may not be replaced."""


class PackageMissingError(BridgeError, ImportError):
    """The operation needs a package that is not installed."""


class ProgramNotFoundError(BridgeError, FileNotFoundError):
    """The program does not exist, or is not a Python program."""


class RasterNotFoundError(BridgeError, FileNotFoundError):
    """The raster or band does not exist, or has no table."""


class SidecarNameError(BridgeError, ValueError):
    """No sidecar name can be made from this raster, band or table name."""


class StaleError(BridgeError):
    """A table may not belong to its raster any more, which differs from the recorded one."""


class TaskError(BridgeError, RuntimeError):
    """A function failed in another process, with an exception that cannot be sent back."""


class WorkerLostError(BridgeError, RuntimeError):
    """Each process that worked on a block ended unexpectedly, so the block was given up."""


class GdalWarning(UserWarning):
    """GDAL's message about a raster or its table; no value is lost."""


class LossWarning(UserWarning):
    """A raster format did not keep a value unchanged."""


class NaNWarning(UserWarning):
    """An expression compared NaN with numbers, and NaN is greater than all of them."""


class StaleWarning(UserWarning):
    """A raster has changed since its sidecar was made."""
