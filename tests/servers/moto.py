"""An S3 server inside the test process: moto, on a free port of 127.0.0.1.

    with running_moto() as server:
        server.client().create_bucket(Bucket="b")

moto takes any key and secret, so nothing here can show that signatures are right. It is one
server for the whole session; tests keep apart by the names of their buckets
(:meth:`Moto.fresh_bucket`), as resetting it costs more than a new bucket and would break a test
that still has a connection.

Real servers carry out each request at once or not at all. moto's threads look whether a condition
holds, and write later; they set an object's metadata after its bytes, and close a file that another
is reading. So here one request is carried out after the other (:data:`_TURN`).
"""

import functools
import itertools
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.config import Config
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.s3.responses import S3Response
from moto.server import MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

_TURN = threading.RLock()
"""Held while moto carries out a request, and by whoever looks into it."""

KEY, SECRET, REGION = "testing-key", "testing-secret", "eu-west-1"


def _in_turn(method: Any) -> Any:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        # By now the request's body has come.
        with _TURN:
            return method(*args, **kwargs)

    return call


@dataclass(frozen=True, slots=True)
class Moto:
    """A running server, and a way to its buckets that goes round the code under test."""

    url: str
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _clients: dict[str, Any] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead any AWS client here."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
        }

    def client(self) -> Any:
        """Return a boto3 client of this server, the same one each time."""
        if "s3" not in self._clients:
            self._clients["s3"] = boto3.session.Session().client(
                "s3",
                endpoint_url=self.url,
                aws_access_key_id=KEY,
                aws_secret_access_key=SECRET,
                region_name=REGION,
                config=Config(max_pool_connections=16, s3={"addressing_style": "path"}),
            )
        return self._clients["s3"]

    @_in_turn
    def put_many(self, bucket: str, contents: dict[str, bytes]) -> None:
        """Put objects into a bucket without a request for each."""
        backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        for key, content in contents.items():
            backend.put_object(bucket, key, content)

    @_in_turn
    def contents(self, bucket: str, prefix: str) -> dict[str, bytes]:
        """Return the objects whose keys begin so, without a request for each."""
        keys = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].get_bucket(bucket).keys
        return {name: keys[name].value for name in list(keys) if name.startswith(prefix)}

    @_in_turn
    def metadata(self, bucket: str, prefix: str) -> dict[str, dict[str, str]]:
        """Return the user metadata of the objects whose keys begin so."""
        keys = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].get_bucket(bucket).keys
        return {
            name: {
                key.lower().removeprefix("x-amz-meta-"): value
                for key, value in keys[name].metadata.items()
            }
            for name in list(keys)
            if name.startswith(prefix)
        }

    @_in_turn
    def copy_many(self, bucket: str, prefix: str, other: str) -> None:
        """Copy the objects whose keys begin so to others, with their metadata."""
        backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        keys = backend.get_bucket(bucket).keys
        for name in [name for name in keys if name.startswith(prefix)]:
            copied = backend.put_object(
                bucket, other + name.removeprefix(prefix), keys[name].value
            )
            copied.set_metadata(dict(keys[name].metadata))

    def fresh_bucket(self) -> str:
        """Make a bucket whose name no other test of this session has had."""
        name = f"bucket-{next(self._numbers)}"
        self.client().create_bucket(
            Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        return name


@contextmanager
def running_moto() -> Iterator[Moto]:
    """Start the server; stop it and give back its port and connections at the end."""
    # One line per request, at level INFO: pytest would keep them all.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    whole = {name: getattr(S3Response, name) for name in ("_key_response", "_bucket_response")}
    for name, method in whole.items():
        setattr(S3Response, name, _in_turn(method))
    # S3 alone. moto's own server looks through its folder, at each request, for the service that is
    # asked for; and debugging makes a class of each.
    app = create_backend_app("s3")
    app.debug = False
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    moto = Moto(f"http://127.0.0.1:{server.server_port}")
    try:
        yield moto
    finally:
        for name, method in whole.items():
            setattr(S3Response, name, method)
        for client in moto._clients.values():
            client.close()
        server.shutdown()
        thread.join()
        server.server_close()
