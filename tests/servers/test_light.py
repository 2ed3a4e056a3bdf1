"""The light server answers as moto does, as far as it answers at all."""

import pytest
from botocore.exceptions import ClientError

from tests.servers.light import light_server


@pytest.fixture(scope="module")
def light():
    with light_server() as server:
        yield server


def said(call, *names):
    """Return what of an answer counts, or the status and code of a refusal."""
    try:
        answer = call()
    except ClientError as error:
        return error.response["ResponseMetadata"]["HTTPStatusCode"], error.response["Error"][
            "Code"
        ]
    found = {name: answer.get(name) for name in names}
    if "Body" in found:
        found["Body"] = answer["Body"].read()
    return answer["ResponseMetadata"]["HTTPStatusCode"], found


def conversation(server):
    """Return what a server says to all that is asked of it here."""
    bucket, client = server.fresh_bucket(), server.client()
    heard = []

    def ask(method, *names, **request):
        heard.append(
            (
                method,
                request,
                said(lambda: getattr(client, method)(Bucket=bucket, **request), *names),
            )
        )
        return heard[-1][2]

    read = ("Body", "ETag", "ContentLength", "Metadata")
    ask("head_object", Key="a/b")
    ask("get_object", *read, Key="a/b")
    _, put = ask("put_object", "ETag", Key="a/b", Body=b"0123456789", Metadata={"m": "x y"})
    ask("put_object", "ETag", Key="a/b", Body=b"other", IfNoneMatch="*")
    ask("put_object", "ETag", Key="a/b", Body=b"other", IfMatch='"0000"')
    ask("put_object", "ETag", Key="none", Body=b"other", IfMatch=put["ETag"])
    ask("put_object", "ETag", Key="a/b", Body=b"ten bytes!", IfMatch=put["ETag"])
    ask("get_object", *read, Key="a/b")
    ask("head_object", *read[1:], Key="a/b")
    for bounds in ("bytes=2-4", "bytes=7-", "bytes=-2", "bytes=5-500", "bytes=10-11"):
        ask("get_object", "Body", "ContentRange", "ContentLength", Key="a/b", Range=bounds)
    ask("get_object", "Body", Key="a/b", IfMatch=put["ETag"])
    ask("put_object", "ETag", Key="a/b", Body=b"", IfNoneMatch="*", Metadata={"m": "z"})
    ask("put_object", "ETag", Key="ä & <b>/%41", Body=b"x")
    ask("copy_object", Key="copied", CopySource={"Bucket": bucket, "Key": "a/b"})
    ask("copy_object", Key="copied", CopySource={"Bucket": bucket, "Key": "none"})
    ask("get_object", *read, Key="copied")
    for n in range(5):
        ask("put_object", Key=f"many/{n}/zarr.json", Body=b"x")
    for request in (
        {},
        {"Prefix": "many/", "Delimiter": "/"},
        {"Prefix": "a"},
        {"Prefix": "none"},
    ):
        page = client.list_objects_v2(Bucket=bucket, **request)
        heard.append([(one["Key"], one["Size"], one["ETag"]) for one in page.get("Contents", [])])
        heard.append([one["Prefix"] for one in page.get("CommonPrefixes", [])])
    pages = client.get_paginator("list_objects_v2").paginate(
        Bucket=bucket, PaginationConfig={"PageSize": 3}
    )
    heard.append([one["Key"] for page in pages for one in page["Contents"]])
    ask(
        "delete_objects",
        Delete={"Objects": [{"Key": "ä & <b>/%41"}, {"Key": "none"}], "Quiet": True},
    )
    ask("delete_object", Key="copied")
    ask("delete_object", Key="copied")
    heard.append([one["Key"] for one in client.list_objects_v2(Bucket=bucket)["Contents"]])
    heard.append(server.contents(bucket, "many/"))
    ask("put_object", Key="a/kept", Body=b"", Metadata={"m": "v"})
    server.copy_many(bucket, "a/", "c/")
    server.put_many(bucket, {"d": b"d"})
    heard.append(sorted(server.contents(bucket, "")))
    # (moto has headers of its own there.)
    heard.append({key: kept.get("m") for key, kept in server.metadata(bucket, "").items()})
    return str(heard).replace(bucket, "bucket")


@pytest.mark.moto_only
def test_it_says_what_moto_says(light, moto):
    assert conversation(light) == conversation(moto)


def test_what_it_does_not_know_it_says(light):
    client = light.client()
    status, code = said(lambda: client.create_multipart_upload(Bucket="b", Key="k"))
    assert (status, code) == (501, "NotImplemented")
    status, code = said(lambda: client.get_object_tagging(Bucket="b", Key="k"))
    assert (status, code) == (501, "NotImplemented")
