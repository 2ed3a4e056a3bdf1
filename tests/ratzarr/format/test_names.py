import hashlib
import json
import unicodedata
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratzarr import DamagedError, FormatVersionError, InvalidNameError, NotARatZarrError
from ratzarr.format import names

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)
ODD = st.text(st.sampled_from("%25aF~/\\._\x00ße\u0301"), min_size=1, max_size=12)


@given(NAMES | ODD)
def test_a_key_is_one_safe_path_component(name):
    key = names.key_of(name)
    assert key not in ("", ".", "..", "zarr.json")
    assert not key.startswith((".", "__"))
    assert not set(key) & set("/\\\x00")
    assert len(key.encode()) <= names.MAX_KEY_BYTES
    assert unicodedata.normalize("NFC", key) == key


@given(NAMES | ODD, NAMES | ODD)
def test_different_names_have_different_keys(one, other):
    assert (names.key_of(one) == names.key_of(other)) == (one == other)


@given(NAMES | ODD)
def test_an_encoded_key_says_its_name_unless_it_was_shortened(name):
    key = names.key_of(name)
    if key != name and "%~" not in key:
        assert unquote(key, errors="strict") == name


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NDVI mean", "NDVI mean"),
        ("100%", "100%"),
        ("größe", "größe"),
        ("b1/b2", "b1%2Fb2"),
        ("a%2Fb", "a%252Fb"),
        ("%~x", "%25%7Ex"),
        (".hidden", "%2Ehidden"),
        ("..", "%2E."),
        ("__x", "%5F_x"),
        ("zarr.json", "%7Aarr.json"),
        ("u\u0308", "u%CC%88"),
        ("x" * 200, "x" * 200),
    ],
)
def test_keys_of_format_version_1(name, key):
    # On disk for ever: a change here makes columns unreadable.
    assert names.key_of(name) == key


def test_long_names_are_shortened_with_a_hash():
    one, other = "x" * 201, "x" * 202
    digest = hashlib.sha256(one.encode()).hexdigest()
    assert names.key_of(one) == "%78" + "x" * 117 + "%~" + digest[:40]
    assert names.key_of(one) != names.key_of(other)


@pytest.mark.parametrize("name", ["", "\ud800", None, 5, b"bytes"])
def test_what_no_column_can_be_called(name):
    with pytest.raises(InvalidNameError):
        names.key_of(name)


def table(**attributes):
    document = names.table_document()
    document["attributes"] |= attributes
    return document


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (table(FORMAT_VERSION=2), FormatVersionError),
        (table(FORMAT_VERSION="1"), FormatVersionError),
        (table(FORMAT_VERSION=True), FormatVersionError),
        (table(ROWCOUNT=-1), DamagedError),
        (table(ROWCOUNT=1.5), DamagedError),
        (table(ROWCOUNT=None), DamagedError),
        (table(CHUNKSIZE=0), DamagedError),
        (names.root_document() | {"node_type": "array"}, NotARatZarrError),
        (names.root_document() | {"zarr_format": 2}, NotARatZarrError),
    ],
)
def test_tables_that_are_refused(document, error):
    with pytest.raises(error, match="here"):
        names.check_table_document(document, "here")


def test_tables_that_are_not():
    names.check_table_document(names.table_document(), "here")
    names.check_table_document(names.root_document(), "here")


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"attributes": []}', b"\xff", b"[" * 100_000]
)
def test_json_that_is_no_document(data):
    with pytest.raises(DamagedError, match="there is damaged"):
        names.from_json(data, "there")


def test_json_is_plain_utf8():
    data = names.to_json({"attributes": {"größe": 1}})
    assert "größe".encode() in data
    assert json.loads(data) == {"attributes": {"größe": 1}}


@pytest.mark.parametrize(
    ("order", "expected"),
    [(["b", "a"], ["b", "a"]), (["b", 1], ["b"]), ("ba", None), (None, None)],
)
def test_an_order_is_a_hint(order, expected):
    names.check_table_document(table(COLUMN_ORDER=order), "here")
    assert names.order_of(table(COLUMN_ORDER=order)) == expected


@pytest.mark.parametrize(
    ("key", "name", "true"),
    [
        ("a%2Fb", "a/b", "a/b"),
        ("a%2Fb", None, "a%2Fb"),
        ("b", "a", "b"),
        ("a%2Fb", "c/d", "a%2Fb"),
        ("b", 5, "b"),
        ("b", "", "b"),
    ],
)
def test_a_name_counts_only_under_its_own_key(key, name, true):
    assert names.true_name(key, {} if name is None else {"NAME": name}) == true
