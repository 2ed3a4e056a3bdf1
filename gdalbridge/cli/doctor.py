"""``gdalbridge doctor``."""

import sys

import click

from gdalbridge.cli.common import Command, config_option, examples, json_option, print_json


@examples("gdalbridge doctor", "gdalbridge doctor s3://bucket/some/prefix")
@click.command("doctor", cls=Command)
@click.argument("place", required=False)
@config_option
@json_option
def command(place: str | None, as_json: bool) -> None:
    """Show the installation and the S3 settings in force; test access to PLACE, if given."""
    from gdalbridge.cli.diagnosis import diagnose, diagnosis_text

    found = diagnose(place)
    if as_json:
        print_json(found)
    else:
        click.echo(diagnosis_text(found))
    if found["problems"]:
        sys.exit(1)
