"""A pytest plugin: tell of the other runs of `make test` just above pytest's last line.

`make test` runs pytest several times: against Debian's GDAL, against a real S3 server, and last in
the main environment. Each of the others leaves its counts in the file that RUN_WRITES names; the
last is given what to say of them in OTHER_RUNS, a line each.
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
    target = os.environ.get("RUN_WRITES")
    if target:
        Path(target).write_text(", ".join(text for text, _ in parts) + "\n")
    for line in os.environ.get("OTHER_RUNS", "").splitlines():
        terminalreporter.write_line(line)
