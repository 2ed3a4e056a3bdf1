"""A network that loses answers, and servers that stumble: the result is exactly the right one.

What lies in the store in the end is judged by zarr-python and boto3, which go round the proxy.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from botocore.exceptions import ConnectTimeoutError

from ratzarr import (
    ChangedError,
    ColumnExistsError,
    ColumnIncompleteError,
    RatZarr,
    RatZarrError,
    StoreError,
)
from ratzarr.stores import open_objects, parse
from ratzarr.stores.s3_client import UNREACHABLE, Retries
from ratzarr.testing.helpers import document, make, message, raw
from tests.servers.faults import (
    AFTER,
    CONFLICT,
    COPY_ERROR,
    DELETE_ERRORS,
    EVERYWHERE,
    Faults,
    faulty_proxy,
)
from tests.stress.processes import Crew, Failure, Task

SETTINGS = {"RATZARR_S3_BACKOFF": "0.02"}
IMPATIENT = {"RATZARR_S3_TIMEOUT": "0.5"}
STALL = 0.8
LOST = [kind for kind in AFTER if kind != "late stall"]
"""Quick ways to lose an answer."""


@pytest.fixture
def place(moto_s3, monkeypatch):
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    return moto_s3


@pytest.fixture
def faulty(moto, place, monkeypatch):
    """Return a function that puts a faulty proxy between us and the server, from then on."""
    stack = []

    def put_between(impatient=False, **faults):
        for name, value in IMPATIENT.items() if impatient else ():
            monkeypatch.setenv(name, value)
        context = faulty_proxy(moto.url, Faults(**{"stall": STALL} | faults))
        proxy = context.__enter__()
        stack.append(context)
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        return proxy

    yield put_between
    for context in stack:
        context.__exit__(None, None, None)


@pytest.fixture
def others(moto):
    """Return how another process opens a table: by a way that has no faults."""
    variables = moto.environment
    options = {
        "endpoint_url": variables["AWS_ENDPOINT_URL"],
        "key": variables["AWS_ACCESS_KEY_ID"],
        "secret": variables["AWS_SECRET_ACCESS_KEY"],
        "client_kwargs": {"region_name": variables["AWS_DEFAULT_REGION"]},
    }
    return lambda url: RatZarr(url, storageOptions=options)


def first(kind, method, end):
    """Return a plan: the first request of this method for keys that end so."""
    return lambda m, key, number: (
        kind if (m, number) == (method, 0) and key.endswith(end) else None
    )


def log_of(place, url, column):
    return document(place, url, f"RAT/{column}")["attributes"]["MODIFICATIONLOG"]


def order_of(place, url):
    return document(place, url, "RAT")["attributes"]["COLUMN_ORDER"]


# ---- the answer to a write on condition is lost


@pytest.mark.parametrize("kind", AFTER)
def test_what_we_created_ourselves_is_not_there_already(place, faulty, kind):
    url = place.new()
    make(url, 5).close()
    proxy = faulty("stall" in kind, plan=first(kind, "PUT", "/zarr.json"))
    with RatZarr(url) as table:
        table.createColumn("a", "int32")
        assert table.getColumnNames() == ["a"]
    # The document of the column, and the table's, which says the order.
    assert proxy.faults.count(kind, conditional=True, method="PUT") == 2
    assert order_of(place, url) == ["a"]
    assert raw(place, url, "a").tolist() == [0] * 5


@pytest.mark.parametrize("kind", LOST)
def test_a_store_whose_creation_was_not_confirmed(place, faulty, kind):
    proxy = faulty(plan=first(kind, "PUT", "/zarr.json"))
    url = place.new()
    with make(url, 5, a=("int32",)) as table:
        assert table.rowCount == 5
    assert proxy.faults.count(kind, conditional=True) == 3
    assert document(place, url, "RAT")["attributes"]["ROWCOUNT"] == 5
    assert "RESIZE" not in document(place, url, "RAT")["attributes"]


@pytest.mark.parametrize("kind", [*LOST, "500", "drop", CONFLICT])
def test_what_others_created_is_there_already(place, faulty, kind):
    """Whatever happens to the attempt: a refusal that is meant stays one."""
    url = place.new()
    with make(url, 5, a=("int32",)) as table:
        table.writeBlock("a", np.arange(5), 0)
    before = place.everything()
    proxy = faulty(plan=first(kind, "PUT", "/zarr.json"))
    with RatZarr(url) as table, pytest.raises(ColumnExistsError):
        table.createColumn("a", "int32")
    assert proxy.faults.count(kind, conditional=True) == 1
    assert place.everything() == before


@pytest.mark.parametrize("kind", AFTER)
def test_an_event_is_logged_once(place, faulty, kind):
    url = place.new()
    make(url, 8, a=("int32",)).close()
    proxy = faulty("stall" in kind, plan=first(kind, "PUT", "/a/zarr.json"))
    with RatZarr(url) as table:
        table.writeBlock("a", np.arange(8), 0)
    assert proxy.faults.count(kind, conditional=True) == 1
    assert len(log_of(place, url, "a")) == 1
    assert raw(place, url, "a").tolist() == list(range(8))


@pytest.mark.parametrize("kind", LOST)
def test_others_have_written_before_we_ask_again(place, faulty, others, kind):
    """Our write is still in the object, below theirs: it is not made a second time."""
    url = place.new()
    make(url, 8, a=("int32",)).close()
    proxy = faulty(plan=first(kind, "PUT", "/a/zarr.json"))

    def meanwhile():
        with others(url) as other:
            for n in range(5):
                other.getColumnAttributeMapping("a")[f"x{n}"] = n
            other.writeBlock("a", np.array([70]), 7)

    proxy.faults.meanwhile = meanwhile
    with RatZarr(url) as table:
        table.writeBlock("a", np.arange(4), 0)
        # And what we believe to be there is brought up to date.
        table.getColumnAttributeMapping("a")["y"] = 1
        assert table.getColumnAttributeMapping("a")["x4"] == 4
    assert proxy.faults.count(kind, conditional=True) == 1
    assert proxy.faults.meanwhile is None
    assert len(log_of(place, url, "a")) == 2
    attributes = document(place, url, "RAT/a")["attributes"]
    assert {name: attributes[name] for name in ("x0", "x4", "y")} == {"x0": 0, "x4": 4, "y": 1}
    assert raw(place, url, "a").tolist() == [0, 1, 2, 3, 0, 0, 0, 70]


@pytest.mark.parametrize("kind", LOST)
def test_removing_an_attribute_that_we_removed_ourselves(place, faulty, others, kind):
    url = place.new()
    with make(url, 8) as table:
        table.getRatAttributeMapping().update(x=1, y=2)
    proxy = faulty(plan=first(kind, "PUT", "/RAT/zarr.json"))

    def meanwhile():
        with others(url) as other:
            other.getRatAttributeMapping()["z"] = 3

    proxy.faults.meanwhile = meanwhile
    with RatZarr(url) as table:
        del table.getRatAttributeMapping()["x"]  # no KeyError
    assert proxy.faults.count(kind, conditional=True) == 1
    attributes = document(place, url, "RAT")["attributes"]
    assert (attributes.get("x"), attributes["y"], attributes["z"]) == (None, 2, 3)


@pytest.mark.parametrize("kind", LOST)
def test_a_new_column_that_others_have_used_already(place, faulty, others, kind):
    """The lost answer was to its creation; they have written to it before we ask again."""
    url = place.new()
    make(url, 8).close()
    proxy = faulty(plan=first(kind, "PUT", "/a/zarr.json"))

    def meanwhile():
        with others(url) as other:
            other.writeBlock("a", np.array([7]), 0)
            other.getColumnAttributeMapping("a")["x"] = 1

    proxy.faults.meanwhile = meanwhile
    with RatZarr(url) as table:
        table.createColumn("a", "int32")
        table.writeBlock("a", np.array([1]), 1)
    assert proxy.faults.count(kind, conditional=True) == 1
    assert order_of(place, url) == ["a"]
    assert len(log_of(place, url, "a")) == 2
    assert document(place, url, "RAT/a")["attributes"]["x"] == 1
    assert raw(place, url, "a").tolist() == [7, 1] + [0] * 6


@pytest.mark.parametrize("kind", LOST)
@pytest.mark.parametrize("there", [False, True])
def test_part_of_a_chunk(place, faulty, others, kind, there):
    """Rows that another has written into it between our write and its repetition stay."""
    url = place.new()
    with make(url, 8, chunk=8, a=("int32",)) as table:
        if there:
            table.writeBlock("a", np.arange(8) + 10, 0)
    proxy = faulty(plan=first(kind, "PUT", "/a/c/0"))

    def meanwhile():
        with others(url) as other:
            other.writeBlock("a", np.array([50, 60]), 5)

    proxy.faults.meanwhile = meanwhile
    with RatZarr(url) as table:
        table.writeBlock("a", np.array([1, 2, 3]), 1)
    assert proxy.faults.count(kind, conditional=True) == 1
    rest = [10, 14, 17] if there else [0, 0, 0]
    assert raw(place, url, "a").tolist() == [rest[0], 1, 2, 3, rest[1], 50, 60, rest[2]]


@pytest.mark.parametrize("kind", LOST)
def test_a_table_that_was_resized_twice(place, faulty, others, kind):
    url = place.new()
    with make(url, 8, a=("int32",)) as table:
        table.writeBlock("a", np.arange(8) + 1, 0)
    proxy = faulty(plan=first(kind, "PUT", "/zarr.json"))

    def meanwhile():
        with others(url) as other:
            other.setRowCount(9)

    proxy.faults.meanwhile = meanwhile
    with RatZarr(url) as table:
        table.setRowCount(5)
    assert proxy.faults.count(kind, conditional=True) >= 1
    with RatZarr(url) as table:
        assert table.rowCount == 9
        table.setRowCount(12)
        assert table.readBlock("a", 0, 12).tolist() == [1, 2, 3, 4, 5] + [0] * 7
    assert raw(place, url, "a").tolist() == [1, 2, 3, 4, 5] + [0] * 7


def test_who_comes_and_goes(place, faulty, others):
    """A create that is refused because of an object that is deleted at once is made again."""
    url = place.new()
    make(url, 3, a=("int32",)).close()
    asked = []

    def deleted(method, key, number):
        # Before it is looked at what refused.
        if method == "HEAD" and key.endswith("RAT/a/zarr.json"):
            asked.append(number)
            with others(url) as other:
                if other.colExists("a"):
                    other.deleteColumn("a")

    faulty(plan=deleted)
    objects = open_objects(parse(url))
    assert objects.create("RAT/a/zarr.json", b"{}") is not None
    assert asked == [0]
    assert place.content(url, "RAT/a/zarr.json") == b"{}"


def test_many_more_have_written(place, faulty, others):
    """Names of writes are kept for a while, not for ever: 2 KB is what an object can carry."""
    url = place.new()
    with make(url, 3) as table:
        for n in range(70):
            table.getRatAttributeMapping()["x"] = n
    head = place.client.head_object(Bucket=place.bucket, Key=place.key(url) + "/RAT/zarr.json")
    writes = head["Metadata"]["ratzarr-writes"].split()
    assert len(writes) == len(set(writes)) == 64
    assert sum(map(len, head["Metadata"].values())) < 1024


# ---- everything else


@pytest.mark.parametrize("kind", [
    DELETE_ERRORS, "503", *LOST,
    *(pytest.param(one, marks=pytest.mark.thorough) for one in ("500", "drop")),
])  # fmt: skip
def test_deleting(place, faulty, kind):
    """In two requests: each deletes 1000 objects at most."""
    url, beside, rows = place.new(), place.new(), 1010
    for each in (url, beside):
        with make(each, rows, chunk=1, a=("int8",), b=("int8",)) as table:
            table.writeBlock("a", np.ones(3, "int8"), 0)
            table.writeBlock("b", np.ones(3, "int8"), 0)
    chunk = place.content(url, "RAT/a/c/0")
    place.put_many(url, {f"RAT/a/c/{n}": chunk for n in range(3, rows)})
    before = place.objects(beside)
    proxy = faulty(plan=lambda method, key, n: kind if method == "POST" and n % 2 == 0 else None)
    with RatZarr(url) as table:
        table.deleteColumn("a")
        assert proxy.faults.count(kind) == 2
        assert table.getColumnNames() == ["b"]
    assert set(place.objects(url)) == {
        "zarr.json", "RAT/zarr.json", "RAT/b/zarr.json", *(f"RAT/b/c/{n}" for n in range(3)),
    }  # fmt: skip
    RatZarr.delete(url)
    assert proxy.faults.count(kind) == 4
    assert place.objects(url) == {}
    assert place.objects(beside) == before


@pytest.mark.parametrize(("kind", "said"), [(DELETE_ERRORS, "SlowDown"), ("drop", "a/zarr.json")])
def test_what_can_not_be_deleted(place, faulty, kind, said):
    """It is said of which object, and the server is not asked for ever."""
    url = place.new()
    make(url, 5, a=("int8",)).close()
    proxy = faulty(plan=lambda method, key, n: kind if method == "POST" else None)
    options = {"retry": {"retries": 2}}
    with RatZarr(url, storageOptions=options) as table:
        with pytest.raises(RatZarrError) as caught:
            table.deleteColumn("a")
        assert table.getColumnNames() == ["a"]
    assert said in message(caught.value)
    assert "RAT/a/zarr.json may not have been deleted" in message(caught.value)
    assert proxy.faults.count(kind) == 3


def test_pages_of_a_listing(place, faulty):
    url = place.new()
    with make(url, 1200, chunk=1, a=("int8",)) as table:
        table.writeBlock("a", np.ones(1, "int8"), 0)
    chunk = place.content(url, "RAT/a/c/0")
    place.remove(url, "RAT/a/c/0")
    place.put_many(url, {f"RAT/a/c/{n}": chunk for n in range(1200) if n % 7})
    for kind in ("503", "drop", "late cut", "late 500"):
        proxy = faulty(
            plan=lambda m, key, n, kind=kind: (
                kind if (m, key) == ("GET", "") and not n % 2 else None
            )
        )
        with RatZarr(url, readOnly=True) as table:
            missing = table.getMissingRows("a")
        assert missing == [(n, n + 1) for n in range(1200) if n % 7 == 0], kind
        assert proxy.faults.count(kind) == 2  # of two pages


@pytest.mark.parametrize("kind", [COPY_ERROR, "500", *LOST])
def test_a_column_that_takes_anothers_place(place, faulty, kind):
    """The server copies it, chunk by chunk: an answer 200 can have an error in it."""
    url = place.new()
    with make(url, 12, a=("int32",)) as table:
        table.writeBlock("a", np.arange(12), 0)
    proxy = faulty(
        plan=lambda m, key, number: (
            kind if m == "PUT" and "RAT/a/c/" in key and not number else None
        )
    )
    with RatZarr(url) as table:
        table.createColumn("a", "float64", complete=False, replace=True)
        table.writeBlock("a", np.arange(12) / 4, 0)
        table.setComplete("a")
    assert proxy.faults.count(kind) == 3
    assert raw(place, url, "a").tolist() == (np.arange(12) / 4).tolist()
    assert not [key for key in place.objects(url) if key.startswith(".pending")]


def test_rows_cut_while_a_column_could_not_be_called_complete(place, faulty, others):
    """The server is away, the rows go, the server is there again: nobody says that all is well."""
    url = place.new()
    with make(url, 12, chunk=4) as table:
        pass
    down = []
    faulty(plan=lambda m, key, n: "503" if down else None)
    with RatZarr(url, storageOptions={"retry": {"retries": 1}}) as table:
        table.createColumn("a", "int32", complete=False)
        table.writeBlock("a", np.arange(12), 0)
        down.append(1)
        with pytest.raises(StoreError):
            table.setComplete("a")
        with others(url) as other:
            other.setRowCount(4)
            other.setRowCount(12)
        down.clear()
        with pytest.raises(ChangedError, match="cut to 4 rows"):
            table.setComplete("a")
    with RatZarr(url, readOnly=True) as table, pytest.raises(ColumnIncompleteError):
        table.readBlock("a", 0, 12)


@pytest.mark.parametrize("kind", EVERYWHERE)
def test_reading(place, faulty, kind):
    url = place.new()
    values = np.random.default_rng(1).integers(0, 2**40, 2000)
    with make(url, 2000, chunk=500, a=("int64",)) as table:
        table.writeBlock("a", values, 0)
    proxy = faulty("stall" in kind, plan=lambda m, key, number: None if number else kind)
    with RatZarr(url, readOnly=True) as table:
        assert np.array_equal(table.readBlock("a", 0, 2000), values)
    assert proxy.faults.count(kind, method="GET") == 6


def test_ten_seconds_of_silence_are_waited_for(place, faulty):
    """With what we wait by default: whoever is slow is not asked twice."""
    url = place.new()
    with make(url, 8, a=("int32",)) as table:
        table.writeBlock("a", np.arange(8), 0)
    proxy = faulty(stall=10, plan=first("stall", "GET", "/c/1"))
    began = time.monotonic()
    with RatZarr(url, readOnly=True) as table:
        assert table.readBlock("a", 0, 8).tolist() == list(range(8))
    assert time.monotonic() - began >= 10
    assert [request.key.endswith("/c/1") for request in proxy.requests].count(True) == 1


# ---- bounds


@pytest.mark.parametrize("by", ["environment", "options"])
@pytest.mark.parametrize("retries", [0, 3])
def test_how_often_is_a_setting(place, faulty, monkeypatch, retries, by):
    url = place.new()
    make(url, 3).close()
    proxy = faulty(plan=lambda *request: "503")
    options = None
    if by == "environment":
        monkeypatch.setenv("RATZARR_S3_RETRIES", str(retries))
    else:
        options = {"retry": {"retries": retries}}
    with pytest.raises(RatZarrError, match="SlowDown") as caught:
        RatZarr(url, storageOptions=options)
    assert url in str(caught.value)
    assert len(proxy.faults.done) == retries + 1
    assert ("tried 4 times" in message(caught.value)) == (retries == 3)


@pytest.mark.parametrize("kind", ["500", "drop", "stall"])
def test_how_long_is_a_setting(place, faulty, kind):
    url = place.new()
    make(url, 3).close()
    proxy = faulty(plan=lambda *request: kind)
    began = time.monotonic()
    with pytest.raises(RatZarrError):
        RatZarr(
            url,
            storageOptions={
                "retry": {"retries": 12, "timeout": 0.3, "backoff": 0.5, "patience": 2}
            },
        )
    assert time.monotonic() - began < 30
    assert 1 < len(proxy.faults.done) < 100


@pytest.mark.parametrize("name", ["RETRIES", "TIMEOUT", "BACKOFF", "PATIENCE"])
@pytest.mark.parametrize("value", ["-1", "many", "nan"])
def test_a_setting_that_can_not_be_meant(place, monkeypatch, name, value):
    monkeypatch.setenv(f"RATZARR_S3_{name}", value)
    with pytest.raises(ValueError, match=f"RATZARR_S3_{name}.*{value}"):
        RatZarr(place.new())


def test_an_option_that_there_is_not(place):
    with pytest.raises(RatZarrError, match=r"retry.*tries.*expected backoff, patience"):
        RatZarr(place.new(), storageOptions={"retry": {"tries": 3}})


@pytest.mark.parametrize("status", [400, 403])
def test_what_does_not_pass_is_not_tried_again(counted_s3, status):
    place, proxy = counted_s3
    proxy.instead = lambda method, key: status
    with pytest.raises(RatZarrError):
        RatZarr(place.new(), readOnly=True)
    assert len(proxy.requests) == 1


def test_nobody_is_there(place, monkeypatch):
    """A wrong port, no network: said soon, whatever the patience with a server that answers."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("RATZARR_S3_BACKOFF", "2")
    began = time.monotonic()
    with pytest.raises(RatZarrError):
        RatZarr(place.new(), storageOptions={"retry": {"retries": 1000}})
    assert time.monotonic() - began < 40


def test_a_machine_that_was_asleep():
    """One attempt to connect that took long is no reason to give up; a second one is."""
    asleep = iter([UNREACHABLE + 1, 0.0])
    retries, tried = Retries(backoff=0), []

    def attempt():
        tried.append(1)
        clock[0] += next(asleep, UNREACHABLE + 1)
        raise ConnectTimeoutError(endpoint_url="http://127.0.0.1:9")

    clock = [0.0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: clock[0])
        with pytest.raises(ConnectTimeoutError):
            retries.run(attempt)
    assert len(tried) == 2


# ---- one request in ten: seeds for which the first requests of each kind, which do not depend on
# how threads take turns, meet with every fault


def hit(proxy, kinds=EVERYWHERE):
    """Check that each kind of fault did occur, and about as many as there should."""
    faults = proxy.faults
    counts = {kind: faults.count(kind) for kind in kinds}
    assert all(counts.values()), counts
    assert any(faults.count(kind, conditional=True, method="PUT") for kind in AFTER), (
        "no write on condition has lost its answer"
    )
    return counts


@pytest.mark.thorough
def test_a_script_over_blocks(place, faulty):
    """Blocks of whole chunks and others, numbers and strings, read and written."""
    url, rows, chunk = place.new(), 2400, 64
    proxy = faulty(impatient=True, seed=215, share=0.1)
    random = np.random.default_rng(3)
    red = random.integers(-(2**31), 2**31, rows, dtype=np.int32)
    with make(url, rows, chunk, red=("int32",), half=("float64",), name=("U",)) as table:
        for start in range(0, rows, chunk):
            table.writeBlock("red", red[start : start + chunk], start)
    with RatZarr(url) as table:
        for start in range(0, rows, chunk):
            length = min(chunk, rows - start)
            table.writeBlock("half", table.readBlock("red", start, length) / 2, start)
        for start in range(0, rows, 150):
            length = min(150, rows - start)
            block = table.readBlock("half", start, length)
            table.writeBlock("name", np.array([f"r{value}" for value in block], "T"), start)
            table.writeBlock("red", -table.readBlock("red", start, length), start)
    hit(proxy)
    zarr = place.open(url)["RAT"]
    assert zarr["red"][:].tobytes() == (-red).tobytes()
    assert zarr["half"][:].tobytes() == (red / 2).tobytes()
    assert zarr["name"][:].tolist() == [f"r{value}" for value in red / 2]
    assert [len(log_of(place, url, name)) for name in ("red", "half", "name")] == [2, 1, 1]
    assert order_of(place, url) == ["red", "half", "name"]


def create(url, who, columns, rows):
    """One of several who create columns, and all write to one that they share."""
    with RatZarr(url) as table:
        won = []
        for n in range(columns):
            table.createColumn(f"own {who} {n}", "int32")
            table.writeBlock(f"own {who} {n}", np.arange(rows) + who * 100 + n, 0)
            table.getColumnAttributeMapping(f"own {who} {n}")["who"] = who
            table.getRatAttributeMapping()[f"{who} {n}"] = n
            try:
                table.createColumn(f"first {n}", "int8", attributes={"who": who})
                won.append(n)
            except ColumnExistsError:
                pass
        table.writeBlock("shared", np.full(3, who + 1), 3 * who)
    return won


def judge(place, url, won, columns, rows):
    """Check what several of :func:`create` have left."""
    crew = range(len(won))
    table = place.open(url)["RAT"]
    names = {f"own {who} {n}" for who in crew for n in range(columns)}
    names |= {f"first {n}" for n in range(columns)} | {"shared"}
    order = order_of(place, url)
    assert len(order) == len(names)
    assert set(order) == names == set(table.keys())
    for who in crew:
        for n in range(columns):
            column = table[f"own {who} {n}"]
            assert column[:].tolist() == (np.arange(rows) + who * 100 + n).tolist()
            assert column.attrs["who"] == who
            assert len(log_of(place, url, f"own {who} {n}")) == 1
            assert table.attrs[f"{who} {n}"] == n
    for n in range(columns):
        # Whoever was told that it is his is the one whose it is.
        assert [who for who in crew if n in won[who]] == [table[f"first {n}"].attrs["who"]]
    assert table["shared"][:].tolist()[: 3 * len(won)] == [who + 1 for who in crew for _ in "abc"]
    assert len(log_of(place, url, "shared")) == len(won)


@pytest.mark.thorough
def test_threads_that_create(place, faulty):
    url, crew, columns, rows = place.new(), 8, 3, 30
    make(url, rows, chunk=16, shared=("int32",)).close()
    proxy = faulty(impatient=True, seed=305, share=0.1)
    with ThreadPoolExecutor(crew) as pool:
        won = list(pool.map(lambda who: create(url, who, columns, rows), range(crew)))
    hit(proxy, (*EVERYWHERE, CONFLICT))
    judge(place, url, won, columns, rows)


def test_processes_that_create(place, faulty, moto):
    url, columns, rows = place.new(), 2, 30
    make(url, rows, chunk=16, shared=("int32",)).close()
    proxy = faulty(impatient=True, seed=396, share=0.1)
    environment = moto.environment | SETTINGS | IMPATIENT | {"AWS_ENDPOINT_URL": proxy.url}
    function = "tests.ratzarr.stores.test_faults:create"
    with Crew(4) as crew:
        won = crew.run(
            [Task(function, (url, who, columns, rows), environment) for who in range(4)]
        )
    assert not [end for end in won if isinstance(end, Failure)], won
    assert len(proxy.faults.done) > 3
    assert any(proxy.faults.count(kind, conditional=True) for kind in AFTER)
    judge(place, url, won, columns, rows)
