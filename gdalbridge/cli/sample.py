"""``gdalbridge sample``."""

from typing import Any

import click

from gdalbridge.cli.common import (
    Command,
    band_option,
    columns_option,
    config_option,
    csv_option,
    examples,
    exclusive,
    json_option,
    print_csv,
    print_json,
    reading_options,
    unicode_text,
)
from gdalbridge.cli.exits import say_note
from gdalbridge.text_table import json_value, plain_text, text_table


@examples(
    "gdalbridge sample seg.tif 512345 6912345",
    "gdalbridge sample seg.tif 150.25 -33.5 --crs EPSG:4326 --json",
    "gdalbridge sample seg.tif plots.csv --csv > plots-with-classes.csv",
    "gdalbridge sample s3://bucket/seg.tif plots.gpkg --layer plots --column class",
)
@click.command("sample", cls=Command, context_settings={"ignore_unknown_options": True})
@click.argument("raster")
@click.argument("points", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--crs",
    callback=unicode_text,
    help="Coordinate reference system of the points, e.g. EPSG:4326 for longitude and latitude.",
)
@click.option("--layer", callback=unicode_text, help="Layer of a file with several.")
@band_option
@columns_option
@reading_options
@config_option
@csv_option
@json_option
def command(
    raster: str, points: tuple[str, ...], columns: tuple[str, ...], as_csv: bool, as_json: bool,
    **options: Any,
) -> None:  # fmt: skip
    """Print the pixel value and the row of RASTER's table under POINTS.

    POINTS are coordinates, x before y (longitude before latitude), or a file: a CSV with columns x
    and y or lon and lat, or a layer of points. Outside the raster and on nodata, values are missing.
    Other columns of the file come before the table's. If the table has a column of the same name,
    an underscore is put before the name of the points' column.
    """
    for one in points:
        if one.startswith("--") or (one.startswith("-") and _number(one) is None):
            raise click.NoSuchOption(one)
    given = _points(points)
    exclusive(csv=as_csv, json=as_json)
    from gdalbridge.rasters.points import points_of
    from gdalbridge.rasters.sample import CRS, HITS, POINTS, RENAMED, free_names, sample

    found = sample(raster, given, columns=columns or None, **options)
    said = {key: text.decode() for key, text in found.schema.metadata.items()}
    if isinstance(given, str):
        say_note(f"points: {said[POINTS]}")
        places = points_of(given, options["crs"], options["layer"]).places.tolist()
        given = [tuple(None if one != one else one for one in place) for place in places]
    names = free_names(["x", "y"], found.column_names)
    renamed = [said[RENAMED]] if said[RENAMED] else []
    renamed += [f"{old} is {new}" for old, new in zip("xy", names, strict=True) if old != new]
    if renamed:
        say_note(f"the table has columns of the same names as the points: {', '.join(renamed)}")
    if said[HITS] == "0" and len(found):
        crs = f" is {said[CRS]}" if said[CRS] else " is not known"
        say_note(
            f"no point is on a pixel with a value. The raster's coordinate reference system{crs}; "
            "--crs names that of the points"
        )
    if as_csv:
        _print_csv(found, given, names)
        return
    records = [
        {names[0]: x, names[1]: y, **record}
        for (x, y), record in zip(given, found.to_pylist(), strict=True)
    ]
    if as_json:
        print_json(json_value(records))
        return
    click.echo(_text(records))


def _points(words: tuple[str, ...]) -> Any:
    """Return pairs of numbers, or the name of a file."""
    numbers = [_number(one) for one in words]
    if len(words) == 1 and numbers[0] is None:
        return words[0]
    wrong = next((word for word, one in zip(words, numbers, strict=True) if one is None), None)
    if wrong is not None:
        raise click.UsageError(f"points are pairs of numbers, or one file: got {wrong!r}")
    if len(numbers) % 2:
        raise click.UsageError(f"points are pairs of numbers: got {len(numbers)} numbers")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _text(records: list[dict[str, Any]]) -> str:
    """Return up to three points with one attribute per line, more points as a table."""
    if len(records) > 3:
        return text_table(list(records[0]), [[_word(one) for one in r.values()] for r in records])
    pieces = [
        {plain_text(key): plain_text(_word(value)) for key, value in one.items()}
        for one in records
    ]
    width = max((len(key) for one in pieces for key in one), default=0)
    return "\n\n".join(
        "\n".join(f"{key:<{width}}  {word}".rstrip() for key, word in one.items())
        for one in pieces
    )


def _word(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.12g}"
    return " ".join(str(json_value(value)).split())


def _print_csv(found: Any, places: list[tuple[float | None, ...]], of_places: list[str]) -> None:
    import pyarrow as pa
    from pyarrow import csv

    names = [*of_places, *found.column_names]
    xs, ys = (pa.array([one[place] for one in places], pa.float64()) for place in (0, 1))
    arrays: list[Any] = [xs, ys]
    for column in found.columns:
        whole = column.combine_chunks()
        if pa.types.is_binary(whole.type) or pa.types.is_fixed_size_list(whole.type):
            whole = pa.array(
                [None if one is None else str(json_value(one)) for one in whole.to_pylist()]
            )
        arrays.append(whole)
    sink = pa.BufferOutputStream()
    csv.write_csv(pa.Table.from_arrays(arrays, names=names), sink)
    print_csv(sink.getvalue().to_pybytes().decode())
