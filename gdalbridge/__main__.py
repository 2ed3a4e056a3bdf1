"""``python -m gdalbridge``: the command line."""

from .cli import main

main()
