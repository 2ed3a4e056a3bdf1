"""The columns of an attached table: their names and order, and the sidecar that changes go to.

The raster's own columns come first, then each sidecar's. New columns, and columns that override one
of the raster's, go to one sidecar, the target. It is created when it is first needed.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from gdalbridge.attached_rat.columns import (
    AttachedColumn,
    OwnColumn,
    SidecarColumn,
    are_equal,
    check_text,
    own_column,
    usage_for_gdal,
)
from gdalbridge.attached_rat.gdal_rat import name_for_gdal
from gdalbridge.attached_rat.open_sidecars import flush_each
from gdalbridge.attached_rat.sidecar_table import SidecarTable
from gdalbridge.attached_rat.values import shown_as
from gdalbridge.errors import (
    BridgeError,
    ConversionError,
    NotWrittenError,
    OutputExistsError,
)
from gdalbridge.gdalio.compat import NEW_TYPES, exceptions, gdal, silence
from gdalbridge.gdalio.field_types import (
    MAX_TABLE_ROWS,
    FieldType,
    kept_usage,
    linear_binning,
    stored_dtype,
    table_type,
    type_name,
    usage_attributes,
)
from gdalbridge.gdalio.rat_reader import RatSchema, RatSource
from gdalbridge.sidecars.merged import LeftOut, merge
from gdalbridge.sidecars.own_rows import own_columns_fit
from gdalbridge.sidecars.provenance import RASTER_ATTR, column_provenance
from ratzarr import TableNotFoundError
from ratzarr.errors import Advice
from ratzarr.format import PROVENANCE_ATTR

__all__ = ["AttachedTable"]


def _of_sidecar(table: SidecarTable, as_text: Collection[str]) -> Iterator[SidecarColumn]:
    for one in table.columns():
        if isinstance(one, LeftOut):
            one.warn()
            continue
        kept = one.attributes.get("GDAL_NAME")
        shown = shown_as(
            one.key,
            one.dtype,
            one.attributes,
            new_types=NEW_TYPES,
            as_text=kept in as_text or one.key in as_text,
        )
        if shown is None:
            LeftOut(table.path, one.key, f"GDAL has no type for {one.dtype}").warn()
        else:
            yield SidecarColumn(table, shown, one.name, one.part)


@dataclass(eq=False)
class AttachedTable:
    """A raster's own table and its sidecars as one table; :class:`AttachedRAT` is GDAL's view of it."""

    name: str
    """The raster's name, for error messages."""
    own: RatSource
    sidecars: list[SidecarTable]
    """The sidecars, in the order of their columns."""
    target: SidecarTable
    """The sidecar in ``sidecars`` that new columns go to."""
    key: str
    """Equal for all attached tables of one band of a raster."""
    prefer: str = "sidecar"
    """Which column is shown if two have the same name: ``sidecar`` or ``raster``."""
    update: bool = False
    """Allow changes to the sidecars."""
    may_override: bool = False
    """Allow new columns that take the place of the raster's own."""
    as_text: Collection[str] = ()
    """Columns to show as text."""
    describe: Callable[[str], Mapping[str, Any]] = lambda _: {}
    """Returns the attributes of a new sidecar, given its path."""
    is_closed: bool = field(default=False, init=False)
    _described: Mapping[str, Any] | None = field(default=None, init=False)
    _columns: list[AttachedColumn] | None = field(default=None, init=False)
    _own_fits: bool = field(default=True, init=False)
    """False if the raster's own columns are left out."""
    _shell: Any = field(default=None, init=False)

    # ---- columns and rows

    @property
    def columns(self) -> list[AttachedColumn]:
        """The columns, in order."""
        if self._columns is None:
            self.load()
        found = self._columns
        if found is None:
            raise BridgeError(f"this attached table of {self.name} was closed")
        return found

    def column(self, index: int) -> AttachedColumn | None:
        """Return a column by its number; None if the number is out of range."""
        columns = self.columns
        return columns[index] if 0 <= index < len(columns) else None

    @property
    def rows(self) -> int:
        """The number of rows of the longest table."""
        if self.is_closed:
            raise BridgeError(f"this attached table of {self.name} was closed")
        rows = max([self._own_rows, *(table.rows for table in self.sidecars)])
        if rows > MAX_TABLE_ROWS:
            raise ConversionError(
                f"{self.name}: the table has {rows} rows, but GDAL supports at most {MAX_TABLE_ROWS}"
            )
        return rows

    @property
    def _own_rows(self) -> int:
        return self.own.schema.rows if self._own_fits else 0

    def load(self, *, again: bool = False) -> None:
        """Read the list of columns; with ``again``, look for new and deleted sidecars first.

        Warns
        -----
        LossWarning
            If a column can't be shown.
        """
        if self.is_closed:
            return
        if again:
            for table in self.sidecars:
                # Another process may have created or deleted the sidecar.
                with suppress(TableNotFoundError):
                    table.open(update=self.update)
        schema = self.own.schema
        own: list[AttachedColumn] = []
        self._own_fits = own_columns_fit(
            self.name,
            [(one.name, one.usage, partial(self.own.read, one.index)) for one in schema.columns],
            schema.rows,
            [table.store for table in self.sidecars if table.store is not None],
            self.prefer,
        )
        if self._own_fits:
            own = [own_column(self.own, one.index, self.as_text) for one in schema.columns]
        self._columns = self._merged(own)
        self._shell = None

    def _merged(self, own: list[AttachedColumn]) -> list[AttachedColumn]:
        of_sidecars = [list(_of_sidecar(one, self.as_text)) for one in self.sidecars]
        return merge(own, of_sidecars, self.prefer)

    def adopt(self) -> None:
        """Show the columns that others have meanwhile put in place of the raster's own.

        All other columns stay as they are until :meth:`load`.
        """
        columns = self._columns or []
        # The raster's own columns come first.
        own = [column for column in columns if isinstance(column, OwnColumn)]
        if not own:
            return
        before = columns[: own[-1].index + 1]
        whole = [own_column(self.own, index, self.as_text) for index in range(len(before))]
        for index, column in enumerate(self._merged(list(whole))[: len(before)]):
            if isinstance(before[index], OwnColumn) and isinstance(column, SidecarColumn):
                columns[index] = column
                self._shell = None

    def shell(self) -> Any:
        """Return a GDAL table with the same columns and no rows, for GDAL's own error messages."""
        if self._shell is None:
            shell = gdal.RasterAttributeTable()
            with exceptions(), silence():
                for column in self.columns:
                    shell.CreateColumn(
                        name_for_gdal(column.name), int(column.type), int(column.usage)
                    )
            self._shell = shell
        return self._shell

    # ---- changes

    def check_update(self) -> None:
        """Check that the table may be changed.

        Raises
        ------
        NotWrittenError
            If it was attached for reading; the message says how to attach it for writing.
        """
        if not self.update:
            raise NotWrittenError(
                Advice(
                    f"{self.name}: the table was attached for reading.",
                    "Attach it with update=True to write changes to a sidecar.",
                )
            )

    def _target(self, rows: int | None = None) -> SidecarTable:
        self.check_update()
        self.target.create(self.rows if rows is None else rows, self._raster_now)
        return self.target

    def _raster_now(self) -> Mapping[str, Any]:
        """Return the attributes that describe the raster. They are read only once."""
        if self._described is None:
            self._described = self.describe(self.target.path)
        return self._described

    def create_column(self, name: str, kind: int, usage: int) -> None:
        """Create a column in the target, as the last column."""
        self.check_update()
        for index, column in enumerate(self.columns):
            if column.name == name:
                if isinstance(column, OwnColumn) and self.may_override:
                    # "Generic" is GDAL's default, so the raster's own usage is kept.
                    kept = usage or kept_usage(column.usage, stored_dtype(kind))
                    self.override(index, kind, kept, filled=False)
                    return
                self._refuse_existing(column)
        # GDAL may show a stored column under another name, so the stored name may be in use
        # although the shown name is not.
        seen = [one for one in self.columns if isinstance(one, SidecarColumn)]
        taken = {one.shown.column for one in seen if one.table is self.target}
        stored_name = self._free_name(name) if not name or name in taken else name
        self.columns.append(self._made(name, stored_name, kind, usage))
        self._shell = None

    def _refuse_existing(self, column: AttachedColumn) -> None:
        whose = "the raster itself" if isinstance(column, OwnColumn) else "a sidecar"
        raise OutputExistsError(f"{self.name}: {whose} has a column {column.name!r} already")

    def _made(
        self, name: str, stored_name: str, kind: int, usage: int, source: str | None = None
    ) -> SidecarColumn:
        if kind not in set(FieldType) or (kind >= FieldType.BOOLEAN and not NEW_TYPES):
            raise ConversionError(
                f"{self.name}, column {name!r}: this version of GDAL has no type {type_name(kind)}"
            )
        # Date-times are stored as text, because each may have another offset from UTC.
        is_time = kind == FieldType.DATETIME
        dtype = stored_dtype(FieldType.STRING if is_time else kind)
        attributes: dict[str, Any] = {
            "GDAL_TYPE": int(kind),
            "GDAL_TYPE_NAME": type_name(kind),
            **usage_attributes(usage),
        }
        if stored_name != name:
            attributes["GDAL_NAME"] = name
        attributes[PROVENANCE_ATTR] = column_provenance(
            "attach",
            self._raster_now()[RASTER_ATTR],
            source,
            {"rows": self._own_rows} if self._own_rows else None,
        )
        table = self._target()
        # As in GDAL, a new column has all rows of the table.
        table.grow(self.rows)
        table.create_column(stored_name, dtype, attributes)
        shown = shown_as(stored_name, np.dtype(dtype), attributes, new_types=NEW_TYPES)
        if shown is None:
            raise ConversionError(f"{self.name}, column {name!r}: no dtype for {type_name(kind)}")
        return SidecarColumn(table, shown, name, None)

    def override(
        self, index: int, kind: int | None = None, usage: int | None = None, *, filled: bool = True
    ) -> SidecarColumn:
        """Replace one of the raster's own columns by a column in the target.

        Earlier columns of the same name are replaced first, because a sidecar's n-th column of a
        name takes the place of the raster's n-th.

        Parameters
        ----------
        index : int
        kind, usage : int, optional
            The new column's type and usage; by default the raster's.
        filled : bool
            Copy the values of the raster's column.

        Raises
        ------
        NotWrittenError
            If overriding is not enabled; the message says how to enable it.
        OutputExistsError
            If another process has replaced the column meanwhile, and it is not to be filled.
        """
        self.check_update()
        own = self.columns[index]
        if not self.may_override or self.prefer == "raster":
            also = "" if self.prefer == "sidecar" else ' and prefer="sidecar"'
            raise NotWrittenError(
                Advice(
                    f"{self.name}: column {own.name!r} is the raster's own, which is never written.",
                    f"With override=True{also} a column of that name in the sidecar takes its "
                    "place (attach, enable, gdalbridge run --override).",
                )
            )
        self.adopt()
        found = self.columns[index]
        if isinstance(found, SidecarColumn):
            if not filled:
                self._refuse_existing(found)
            return found
        for earlier, column in enumerate(self.columns[:index]):
            if column.name == own.name and isinstance(column, OwnColumn):
                self.override(earlier)
        made = self._made(
            own.name,
            self._free_name(own.name),
            own.type if kind is None else kind,
            own.usage if usage is None else usage,
            own.name if filled else None,
        )
        if filled:
            made.take_from(own, self.own.schema.rows)
        self.columns[index] = made
        self._shell = None
        return made

    def _free_name(self, name: str) -> str:
        check_text(name, f"{self.name}, name of a column")
        found, number = name or "column 1", 2
        while self.target.has(found):
            found, number = f"{name or 'column'} {number}", number + 1
        return found

    def take(self, given: OwnColumn, number: int) -> None:
        """Copy a column of another table, unless an equal column exists already.

        Parameters
        ----------
        given : OwnColumn
            The column of the other table.
        number : int
            Its position among the columns of the same name, from 0.

        Raises
        ------
        ConversionError
            If a sidecar has the column with another type, or as one of several values per row,
            which can't have a usage of its own.
        """
        of_name = [i for i, column in enumerate(self.columns) if column.name == given.name]
        if number < len(of_name):
            there = self.columns[of_name[number]]
            same_usage = there.usage == given.usage or usage_for_gdal(there) == given.usage
            same_values = are_equal(there, given, given.rows)
            if same_values and same_usage:
                return
            if not isinstance(there, SidecarColumn):
                made = self.override(of_name[number], given.type, given.usage, filled=False)
            elif there.type == given.type:
                made = there
                if not same_usage:
                    made.set_usage(given.usage)
                    self._shell = None
                if same_values:
                    return
            else:
                raise ConversionError(
                    f"{self.name}: column {given.name!r} is {type_name(there.type)} in "
                    f"{there.table.path}, but {type_name(given.type)} in the table to set"
                )
        else:
            made = self._made(given.name, self._free_name(given.name), given.type, given.usage)
            self.columns.append(made)
            self._shell = None
        made.take_from(given, given.rows)

    def set_rows(self, rows: int) -> None:
        """Set the number of rows of the sidecars.

        Raises
        ------
        NotWrittenError
            If the raster's own table is longer.
        """
        self.check_update()
        if rows < self._own_rows:
            raise NotWrittenError(
                f"{self.name}: can't set {rows} rows, because the raster's own table has "
                f"{self._own_rows} rows and is never written"
            )
        if rows == self.rows:
            return
        for table in self.sidecars:
            if table.exists and table.rows > rows:
                table.set_rows(rows)
        if self.rows < rows:
            target = self._target(rows)
            if target.rows < rows:
                target.set_rows(rows)

    def grow(self, column: SidecarColumn, rows: int) -> None:
        """Grow a column's sidecar to at least ``rows`` rows."""
        self.check_update()
        column.table.grow(rows)

    def remove_statistics(self) -> None:
        """Delete the columns that GDAL's ``RemoveStatistics`` would delete.

        Raises
        ------
        NotWrittenError
            If one of them is the raster's own, or takes the place of one of the raster's own, which
            would be shown again.
        """
        self.check_update()
        rest = self.shell().Clone()
        rest.RemoveStatistics()
        left = [
            (rest.GetNameOfCol(i), rest.GetUsageOfCol(i)) for i in range(rest.GetColumnCount())
        ]
        gone = []
        for column in self.columns:
            if left and left[0] == (name_for_gdal(column.name), column.usage):
                left.pop(0)
            else:
                gone.append(column)
        own = {one.name for one in self.own.schema.columns} if self._own_fits else set()
        for column in gone:
            if column.name in own:
                raise NotWrittenError(
                    f"{self.name}: column {column.name!r} can't be removed, because the raster has "
                    "it in its own table, which is never written"
                )
        stored = {(id(column.table), column.shown.column): column
                  for column in gone if isinstance(column, SidecarColumn)}  # fmt: skip
        for column in stored.values():
            column.table.delete_column(column.shown.column)
        self.load()

    # ---- the table as a whole

    def _preferred(self, getter: Callable[[Mapping[str, Any]], Any], own: Any) -> Any:
        stored = next((v for t in self.sidecars if (v := getter(t.attributes)) is not None), None)
        first, second = (own, stored) if self.prefer == "raster" else (stored, own)
        return second if first is None else first

    @property
    def linear_binning(self) -> tuple[float, float] | None:
        """Minimum of row 0, and bin size; None without linear binning."""
        found: tuple[float, float] | None = self._preferred(
            linear_binning, self.own.schema.linear_binning if self._own_fits else None
        )
        return found

    def set_linear_binning(self, minimum: float, size: float) -> None:
        """Store linear binning in the target."""
        self._set(RatSchema((), 0, None, (minimum, size)))

    @property
    def table_type(self) -> int:
        """GDAL's number of the table's type: 0 thematic, 1 athematic."""
        return int(self._preferred(table_type, self.own.schema.table_type) or 0)

    def set_table_type(self, kind: int) -> None:
        """Store the table's type in the target."""
        if kind not in (0, 1):
            raise BridgeError(
                f"a table's type must be 0 (thematic) or 1 (athematic): got {kind!r}"
            )
        self._set(RatSchema((), 0, kind, None))

    def _set(self, schema: RatSchema) -> None:
        self._target().set_attributes(schema.attributes)

    # ---- the end

    def flush(self) -> None:
        """Write the pending changes of all sidecars.

        Raises
        ------
        RatZarrError
            The first error, after all sidecars were tried.
        """
        flush_each(self.sidecars)

    def close(self) -> None:
        """Release the sidecars and the raster."""
        self.is_closed = True
        self._columns = self._shell = None
        self.sidecars = []
        self.own.close()
