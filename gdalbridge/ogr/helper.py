"""The helper process of the vector driver: ``python -m gdalbridge.ogr.helper SOCKET``.

The driver in the client's Python (``driver/ogr_ratzarr.py``) starts it, with the number of an open
socket. Each message begins with two numbers: the bytes of a JSON object, and of what follows it.
There is one request at a time. The process ends as soon as the socket closes, also in the middle
of a request.
"""

import json
import os
import queue
import signal
import socket
import struct
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

__all__ = ["main"]

PROTOCOL = 1
"""Increase it if messages change; the driver's must be equal."""
_HEAD = struct.Struct("<IQ")


class _Server:
    """Answers requests. Tables and scans have numbers that the client chooses."""

    def __init__(self) -> None:
        self._layers: dict[int, Any] = {}
        self._scans: dict[int, tuple[int, Iterator[Any]]] = {}

    def answer(self, request: Mapping[str, Any]) -> tuple[Mapping[str, Any], bytes]:
        """Return the header and the bytes of a reply."""
        for key in request["drop"]:
            self._drop(key)
        operation = request["operation"]
        if operation == "drop":
            return {}, b""
        layer = self._layer(request)
        if operation == "open":
            header = {"fields": layer.fields, "rows": layer.rows, "fid_name": layer.fid_name}
            return header | {"schema": layer.schema}, b""
        if operation == "page":
            frame = layer.page(request["row"], request["rows"])
        else:
            frame = self._next(layer, request)
        return frame.header, frame.payload

    def _layer(self, request: Mapping[str, Any]) -> Any:
        key = request["table"]
        if key not in self._layers:
            from gdalbridge.errors import BridgeError
            from gdalbridge.ogr.layer import Layer

            layer = Layer(request["name"], request["options"])
            # The client has opened the table earlier, through another helper.
            if request["schema"] not in (None, layer.schema):
                layer.close()
                raise BridgeError(
                    f"{request['name']}: its columns or its number of rows have changed: open it "
                    "again"
                )
            self._layers[key] = layer
        return self._layers[key]

    def _next(self, layer: Any, request: Mapping[str, Any]) -> Any:
        """Return the next frame of a scan."""
        scan, row = request["scan"], request["row"]
        table, frames = self._scans.get(scan) or (
            request["table"],
            layer.frames(row, request["condition"]),
        )
        self._scans[scan] = table, frames
        try:
            return next(frames)
        except BaseException:
            self._drop(scan)
            raise

    def _drop(self, key: int) -> None:
        _, frames = self._scans.pop(key, (None, None))
        if frames is not None:
            frames.close()  # type: ignore[attr-defined]  # frames is a generator
        layer = self._layers.pop(key, None)
        if layer is not None:
            for scan in [one for one, (table, _) in self._scans.items() if table == key]:
                self._drop(scan)
            layer.close()


def _received(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = connection.recv(size - len(data))
        if not part:
            raise ConnectionError("end of file")
        data += part
    return bytes(data)


def _receive(connection: socket.socket, requests: "queue.SimpleQueue[bytes]") -> None:
    """Put requests into a queue; end the process when the client is gone."""
    with suppress(OSError):
        while True:
            length, _ = _HEAD.unpack(_received(connection, _HEAD.size))
            requests.put(_received(connection, length))
    os._exit(0)


def _message(error: Exception) -> str:
    from gdalbridge.errors import BridgeError
    from ratzarr import RatZarrError

    if isinstance(error, BridgeError | RatZarrError | OSError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    # The client may have closed its stderr.
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"ratzarr: {category.__name__}: {message}\n")
        sys.stderr.flush()


def main(number: int) -> None:
    """Serve the client at the other end of a socket until it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.showwarning = _show_warning
    connection = socket.socket(fileno=number)
    connection.set_inheritable(False)
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, requests), daemon=True).start()
    server = _Server()
    reply: tuple[Mapping[str, Any], bytes] = {"protocol": PROTOCOL}, b""
    while True:
        header, payload = reply
        text = json.dumps(header).encode()
        try:
            connection.sendall(_HEAD.pack(len(text), len(payload)) + text)
            connection.sendall(payload)
        except OSError:
            os._exit(0)
        # Their memory is free while the next request is waited for.
        del payload, header, reply
        request = json.loads(requests.get())
        try:
            reply = server.answer(request)
        except Exception as error:
            reply = {"error": _message(error)}, b""


if __name__ == "__main__":
    main(int(sys.argv[1]))
