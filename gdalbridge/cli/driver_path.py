"""``gdalbridge driver-path``."""

import shlex

import click

from gdalbridge.cli.common import Command, examples

TEXT = """\

# Tables for every program that uses GDAL. In a shell:
export GDAL_PYTHON_DRIVER_PATH={path}
ogrinfo RATZARR:seg.tif rat -where "area > 10"
ogr2ogr -f GPKG rat.gpkg "RATZARR:seg.tif?columns=area,class"
# QGIS: start it from this shell, or set the variable in Settings > Options > System > Environment;
# then, in Layer > Add Layer > Add Vector Layer, enter the source RATZARR:/data/seg.tif
qgis
# pyogrio reads the variable when it is imported:
python -c 'import pyogrio; print(pyogrio.read_arrow("RATZARR:seg.tif"))'"""


@examples(
    "gdalbridge driver-path",
    "export GDAL_PYTHON_DRIVER_PATH=$(gdalbridge driver-path | head -n 1)",
)
@click.command("driver-path", cls=Command)
def command() -> None:
    """Print the value of GDAL_PYTHON_DRIVER_PATH, and how to read tables with other programs.

    GDAL's vector programs then read tables as layers: ogrinfo, ogr2ogr, QGIS, pyogrio and others,
    also with another Python and another version of GDAL than ours.
    """
    from gdalbridge.ogr.driver_path import driver_directory

    path = str(driver_directory())
    click.echo(path)
    click.echo(TEXT.format(path=shlex.quote(path)))
