"""dBASE files written byte by byte: the oracle for what a .vat.dbf holds."""

import struct


def write_dbf(path, fields, records, *, ldid=0, count=None):
    """Write a dBASE III file.

    fields: (name, kind, width, decimals), all bytes or numbers; records: a list of cells as bytes,
    each one padded here; a record that begins with None is marked as deleted.
    """
    width = 1 + sum(field[2] for field in fields)
    start = 33 + 32 * len(fields)
    out = [
        struct.pack(
            "<BBBBIHH17sBxx", 3, 124, 1, 1, len(records) if count is None else count, start,
            width, b"", ldid,
        )
    ]  # fmt: skip
    for name, kind, length, decimals in fields:
        out.append(struct.pack("<11sc4xBB14x", name, kind, length, decimals))
    out.append(b"\r")
    for record in records:
        flag = b" "
        if record[0] is None:
            flag, record = b"*", record[1:]
        out.append(flag)
        for cell, (_, kind, length, _) in zip(record, fields, strict=True):
            assert len(cell) <= length
            out.append(cell.rjust(length) if kind in b"NF" else cell.ljust(length))
    out.append(b"\x1a")
    with open(path, "wb") as file:
        file.write(b"".join(out))


def cut(path, size):
    """Cut a file to so many bytes."""
    with open(path, "r+b") as file:
        file.truncate(size)
