"""What this process asks of the system, by Python's audit events: no code is replaced for it.

``open`` and ``os.open`` are one event, ``os.scandir``, ``fcntl.flock``, ``os.rename`` are others:
see the table of audit events in Python's documentation.
"""

import sys
from contextlib import contextmanager

_listeners = []


def _tell(event, arguments):
    for listen in tuple(_listeners):
        listen(event, arguments)


@contextmanager
def listening(listen):
    """Call ``listen(event, arguments)`` before each event; what it raises, the event raises."""
    if _tell not in _installed:
        # For as long as the process lives: Python has no way to take one off.
        sys.addaudithook(_tell)
        _installed.append(_tell)
    _listeners.append(listen)
    try:
        yield
    finally:
        _listeners.remove(listen)


_installed = []


@contextmanager
def recorded(*events):
    """Yield a list to which the arguments of these events are added."""
    seen = []

    def listen(event, arguments):
        if event in events:
            seen.append(arguments)

    with listening(listen):
        yield seen
