"""Every error that gdalbridge raises on purpose; all are children of :class:`BridgeError`."""

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
    """Root of every error that gdalbridge raises on purpose."""


class BlockError(BridgeError, ValueError):
    """A block of rows that the table it is for can't take: its length, its shape, its place."""


class CancelledError(BridgeError):
    """The progress callback or object wished to stop."""


class ColumnMissingError(BridgeError, AttributeError, KeyError):
    """A script asks a table for a column that it does not have: ``hasattr`` is False."""

    # KeyError would show the message in quotes.
    __str__ = Exception.__str__


class ColumnSelectionError(BridgeError, LookupError):
    """A column was asked for that is not there."""


class ConversionError(BridgeError, ValueError):
    """A value, or a dtype, that the other side can't hold exactly."""


class ExecutorError(BridgeError, RuntimeError):
    """A script can't be run in this way, or there is no such executor."""


class GdalError(BridgeError, RuntimeError):
    """GDAL failed; the message is its own."""


class GdalLossError(GdalError, ValueError):
    """Values of a raster's own table were lost or altered when it was read."""


class GdalMissingError(BridgeError, ImportError):
    """GDAL's Python bindings are not installed, or can't be loaded."""


class NotSendableError(BridgeError, TypeError):
    """A function, a block or a result that can't be sent to another process."""


class NotWrittenError(BridgeError, OSError):
    """A raster can't be written, or did not keep what was written."""


class OutputExistsError(BridgeError, FileExistsError):
    """The output is there already and was not to be replaced."""


class PackageMissingError(BridgeError, ImportError):
    """What was asked for needs a package that is not installed."""


class ProgramNotFoundError(BridgeError, FileNotFoundError):
    """There is no such program, or it is not one of Python's."""


class RasterNotFoundError(BridgeError, FileNotFoundError):
    """There is no such raster, or band, or it has no table."""


class SidecarNameError(BridgeError, ValueError):
    """A raster, band or table name from which no sidecar's name can be made."""


class StaleError(BridgeError):
    """A table may not belong to its raster any more, which is not as the table has recorded it."""


class TaskError(BridgeError, RuntimeError):
    """A function failed in another process, with an exception that can't be sent."""


class WorkerLostError(BridgeError, RuntimeError):
    """Work was given up: whatever process did it came to its end, again and again."""


class GdalWarning(UserWarning):
    """GDAL's own words on a raster or its table; no value is lost."""


class LossWarning(UserWarning):
    """A raster format could not hold something as it was given."""


class StaleWarning(UserWarning):
    """A raster is not as it was when its sidecar was made."""
