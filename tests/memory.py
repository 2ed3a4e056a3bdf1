"""How much memory a process has had at its most: for programs that tests run to measure it."""

import resource
from pathlib import Path

__all__ = ["peak"]


def peak() -> int:
    """Return this process's greatest resident size so far, in MiB.

    Not ``ru_maxrss``: on Linux a process takes that over from the one that started it, so a test
    that has itself used much would measure itself.
    """
    status = Path("/proc/self/status")
    if status.exists():
        found = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(found[0].split()[1]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
