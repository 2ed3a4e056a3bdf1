"""What lies in a table's place, as zarr-python and the words of the format have it.

Chunks that S3 says are an earlier column's (docs/format.md, "Column identity of a chunk") are taken out
before zarr-python reads the rest; columns that are not complete are read like others.
"""

import json
from dataclasses import replace
from functools import cached_property

from tests.stress.raw import RawTable

MARK = "ratzarr"
PENDING = ".pending/"
FLOATS = ("float16", "float32", "float64")


class Look:
    """One look at all objects of a table.

    Parameters
    ----------
    place, url
        Where it is.
    """

    def __init__(self, place, url):
        self.place = place
        if place.kind == "s3":
            # No need of a request for each object.
            prefix = url.removeprefix(f"s3://{place.bucket}/") + "/"
            found = place.moto.contents(place.bucket, prefix)
            marks = place.moto.metadata(place.bucket, prefix)
            self.marks = {
                key.removeprefix(prefix): mark.get(MARK, "").partition("/")[0]
                for key, mark in marks.items()
            }
        else:
            found, prefix = place.objects(url), ""
            self.marks = {}
        self.objects = {key.removeprefix(prefix): data for key, data in found.items()}
        self.documents = {
            key.rpartition("/")[0]: json.loads(data)
            for key, data in self.objects.items()
            if key.count("/") > 1 and key.endswith("/zarr.json")
        }
        self.keys = {
            document["attributes"].get("NAME", prefix.split("/")[1]): prefix
            for prefix, document in self.documents.items()
            if not prefix.startswith(PENDING)
        }

    def identity(self, name, *, pending=False):
        """Return what a column's document calls it."""
        if not pending:
            return self.documents[self.keys[name]]["attributes"]["COLUMN_ID"]
        found = [
            document["attributes"]["COLUMN_ID"]
            for prefix, document in self.documents.items()
            if prefix.startswith(PENDING)
            and document["attributes"].get("NAME", prefix.split("/")[1]) == name
        ]
        assert len(found) == 1, f"columns being built for {name!r}: {found}"
        return found[0]

    def foreign(self, name):
        """Return chunks of a column that say they are another's, with whose they are."""
        prefix = self.keys.get(name)
        own = self.documents[prefix]["attributes"]["COLUMN_ID"] if prefix else ""
        return {
            int(key.split("/")[3]): mark
            for key, mark in self.marks.items()
            if prefix and key.startswith(f"{prefix}/c/") and mark and mark != own
        }

    @cached_property
    def table(self):
        """The columns that everybody sees, by zarr-python."""
        foreign = {
            f"{self.keys[name]}/c/{chunk}" for name in self.keys for chunk in self.foreign(name)
        }
        found = {}
        for key, data in self.objects.items():
            chunk = "/".join(key.split("/")[:4])
            if not key.startswith(PENDING) and chunk not in foreign:
                found[key] = data
        for prefix, document in self.documents.items():
            if not prefix.startswith(PENDING):
                found[f"{prefix}/zarr.json"] = _readable(document)
        return _columns(
            found, {p: d for p, d in self.documents.items() if not p.startswith(PENDING)}
        )

    def column(self, name, identity):
        """Return a column, wherever it is, by zarr-python; None where it is nowhere."""
        for prefix, document in self.documents.items():
            if document["attributes"]["COLUMN_ID"] != identity:
                continue
            if not prefix.startswith(PENDING):
                return self.table.columns[name]
            key = prefix.split("/")[1]
            found = {
                f"RAT/{key}{path.removeprefix(prefix)}": data
                for path, data in self.objects.items()
                if path.startswith(f"{prefix}/")
            }
            found |= {name: self.objects[name] for name in ("zarr.json", "RAT/zarr.json")}
            found[f"RAT/{key}/zarr.json"] = _readable(document)
            return _columns(found, {prefix: document}).columns[name]
        return None


def _readable(document):
    attributes = {k: v for k, v in document["attributes"].items() if k != "COMPLETE"}
    readable = document | {"attributes": attributes}
    if _has_bits(document):
        # zarr-python makes a signalling NaN a quiet one: it reads the bits, as integers.
        bits = document["data_type"].replace("float", "uint")
        readable |= {"data_type": bits, "fill_value": int(document["fill_value"], 16)}
    return json.dumps(readable).encode()


def _has_bits(document):
    return document["data_type"] in FLOATS and str(document["fill_value"]).startswith("0x")


def _columns(found, documents):
    """Return the columns of a table, those that were read as integers as what they are."""
    table = RawTable(found)
    for prefix, document in documents.items():
        name = document["attributes"].get("NAME", prefix.split("/")[1])
        if _has_bits(document) and name in table.columns:
            column = table.columns[name]
            values = column.values.view(document["data_type"])
            table.columns[name] = replace(column, values=values)
    return table
