"""The files of a table, and their times."""

import os
import time

from ratzarr.stores import state_of


def wait_until_settled(path):
    """Wait until each file below ``path`` is so old that it can be told from what it becomes.

    The times of two changes can be the same where they come within a tick of the system: until
    then nothing is remembered of a file.
    """
    for folder, _, names in os.walk(path):
        for name in ("", *names):
            while not state_of(os.lstat(os.path.join(folder, name))):
                time.sleep(0.01)
