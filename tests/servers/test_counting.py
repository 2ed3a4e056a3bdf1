"""The proxy that counts: if it were wrong, so would be every count."""

import http.client
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config

from tests.servers.counting import counting_proxy
from tests.servers.moto import KEY, REGION, SECRET

# What goes through the proxy is signed by the keys that moto takes.
pytestmark = pytest.mark.moto_only


@pytest.fixture
def bucket(moto):
    return moto.fresh_bucket()


@pytest.fixture
def proxy(moto):
    with counting_proxy(moto.url) as proxy:
        yield proxy


@pytest.fixture
def client(proxy):
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=proxy.url,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        region_name=REGION,
        config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}),
    )
    with closing(client):
        yield client


def test_a_round_trip(proxy, client, moto, bucket):
    content = bytes(range(256)) * 5000
    client.put_object(Bucket=bucket, Key="a b/é", Body=content)
    assert client.get_object(Bucket=bucket, Key="a b/é")["Body"].read() == content
    head = client.head_object(Bucket=bucket, Key="a b/é")
    assert head["ContentLength"] == len(content)
    assert client.list_objects_v2(Bucket=bucket, Prefix="a")["KeyCount"] == 1
    client.delete_object(Bucket=bucket, Key="a b/é")
    assert proxy.counts() == {"PUT": 1, "GET": 2, "HEAD": 1, "DELETE": 1}
    assert [request.key for request in proxy.requests[:3]] == [f"{bucket}/a b/é"] * 3
    assert "prefix=a" in proxy.requests[3].query
    assert [request.status for request in proxy.requests] == [200, 200, 200, 200, 204]
    assert proxy.requests[0].body_length >= len(content)
    host = proxy.url.removeprefix("http://")
    assert {request.headers["host"] for request in proxy.requests} == {host}
    assert moto.client().list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_one_connection_serves_many_requests(proxy, client, bucket):
    for number in range(20):
        client.put_object(Bucket=bucket, Key=str(number), Body=b"x")
        client.head_object(Bucket=bucket, Key=str(number))
    assert proxy.connections == 1


def test_a_refusal_is_passed_on(proxy, client, bucket):
    with pytest.raises(client.exceptions.NoSuchKey):
        client.get_object(Bucket=bucket, Key="nothing")
    client.put_object(Bucket=bucket, Key="a", Body=b"x", IfNoneMatch="*")
    with pytest.raises(client.exceptions.ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=bucket, Key="a", Body=b"y", IfNoneMatch="*")
    assert [request.status for request in proxy.requests] == [404, 200, 412]


def test_answering_in_the_servers_place(proxy, client, bucket):
    proxy.instead = lambda method, key: 403 if method == "PUT" else None
    with pytest.raises(client.exceptions.ClientError, match="403"):
        client.put_object(Bucket=bucket, Key="a", Body=b"x")
    assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
    proxy.clear()
    assert proxy.counts() == {}


def test_a_chunked_body(proxy, moto, bucket):
    connection = http.client.HTTPConnection(urlsplit(proxy.url).netloc)
    with closing(connection):
        for parts in ([b"one", b"two" * 9999], [b"last"]):
            connection.request("PUT", f"/{bucket}/chunked", body=iter(parts), encode_chunked=True,
                               headers={"Transfer-Encoding": "chunked",
                                        "Authorization": "AWS4-HMAC-SHA256 Credential=x/y/z/s3/w"})  # fmt: skip
            assert connection.getresponse().read() == b""
            got = moto.client().get_object(Bucket=bucket, Key="chunked")["Body"].read()
            assert got == b"".join(parts)


def test_a_client_that_waits_to_be_asked_for_the_body(proxy, moto, bucket):
    connection = http.client.HTTPConnection(urlsplit(proxy.url).netloc)
    with closing(connection):
        connection.putrequest("PUT", f"/{bucket}/expected")
        connection.putheader("Content-Length", "4")
        connection.putheader("Expect", "100-continue")
        connection.endheaders()
        line = connection.sock.recv(1000)
        assert line.startswith(b"HTTP/1.1 100 ")
        connection.send(b"body")
        assert connection.getresponse().status in (200, 403)
    assert proxy.counts() == {"PUT": 1}
    assert proxy.requests[0].body_length == 4


def test_a_delay_and_how_many_wait(proxy, client, bucket):
    proxy.delay = 0.1
    started = time.perf_counter()
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda n: client.put_object(Bucket=bucket, Key=str(n), Body=b"x"), range(5)))
    assert time.perf_counter() - started >= 0.1
    assert 2 <= proxy.peak <= 5
    proxy.clear()
    proxy.delay = 0.0
    client.head_object(Bucket=bucket, Key="0")
    assert proxy.peak == 1
