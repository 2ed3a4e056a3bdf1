"""A pytest plugin: tell of the run in the second environment just above pytest's last line.

`make test` runs the tests twice. The first run (Debian's GDAL) leaves its counts in the file that
SECOND_RUN_WRITES names; the other is given them in SECOND_RUN_SAYS.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    parts, _ = terminalreporter.build_summary_stats_line()
    target = os.environ.get("SECOND_RUN_WRITES")
    if target:
        Path(target).write_text(", ".join(text for text, _ in parts) + "\n")
    said = os.environ.get("SECOND_RUN_SAYS")
    if said:
        terminalreporter.write_line(f"second environment: {said}")
