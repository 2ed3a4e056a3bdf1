"""The modification log."""

import datetime as dt
import os
import pwd
import sys

import numpy as np
import pytest

from ratzarr import RatZarr
from ratzarr.testing.helpers import document, make


class Log:
    """The first write of an instance to a column logs its user, time and command."""

    def _events(self, place, url, key="a"):
        return document(place, url, f"RAT/{key}")["attributes"]["MODIFICATIONLOG"]

    def test_one_event_per_column_and_instance(self, place, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["make_columns.py", "--year", "2026"])
        monkeypatch.setenv("LOGNAME", "someone")
        url = place.new()
        start = dt.datetime.now(dt.UTC).replace(microsecond=0)
        with make(place.at(url), 9, a=("int32",), b=("int32",)) as table:
            assert table.getModificationLog("a") == []
            for _ in range(3):
                table.writeBlock("a", np.arange(9), 0)
            events = table.getModificationLog("a")
            assert len(events) == 1
            when, user, argv = events[0]
            assert isinstance(events[0], tuple)
            assert isinstance(when, dt.datetime)
            assert when.utcoffset() == dt.timedelta(0)
            end = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)
            assert start <= when <= end
            assert user == "someone"
            assert argv == ["make_columns.py", "--year", "2026"]
            assert table.getModificationLog("b") == []
        with RatZarr(place.at(url)) as table:
            monkeypatch.setattr(sys, "argv", ["second.py"])
            table.writeBlocks({"a": np.arange(9), "b": np.arange(9)}, 0)
            table.writeBlock("a", np.arange(9), 0)
            assert [event[2] for event in table.getModificationLog("a")] == [
                ["make_columns.py", "--year", "2026"],
                ["second.py"],
            ]
            assert len(table.getModificationLog("b")) == 1
        with RatZarr(place.at(url), readOnly=True) as table:
            assert len(table.getModificationLog("a")) == 2

    def test_on_disk(self, place, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["x.py", "é"])
        monkeypatch.setenv("LOGNAME", "someone")
        url = place.new()
        with make(place.at(url), 9, a=("int32",)) as table:
            assert self._events(place, url) == []
            table.writeBlock("a", np.arange(9), 0)
            when = table.getModificationLog("a")[0][0]
        [[text, user, argv]] = self._events(place, url)
        assert (user, argv) == ("someone", ["x.py", "é"])
        parsed = dt.datetime.fromisoformat(text)
        assert parsed == when
        assert parsed.utcoffset() == dt.timedelta(0)

    def test_only_writing_values_is_an_event(self, place):
        url = place.new()
        with make(place.at(url), 9, a=("int32",)) as table:
            table.readBlock("a", 0, 9)
            table.setRowCount(4)
            table.getColumnAttributeMapping("a")["x"] = 1
            assert table.getModificationLog("a") == []
        assert self._events(place, url) == []

    def test_an_instance_that_looks_again_is_the_same(self, place):
        url = place.new()
        with make(place.at(url), 9, a=("int32",)) as table:
            table.writeBlock("a", np.arange(9), 0)
            table.refresh()
            table.writeBlock("a", np.arange(9), 0)
            assert len(self._events(place, url)) == 1

    def test_others_events_are_kept(self, place):
        url = place.new()
        with make(place.at(url), 9, a=("int32",)) as one, RatZarr(place.at(url)) as other:
            one.openColumn("a")
            other.openColumn("a")
            one.writeBlock("a", np.arange(4), 0)
            other.writeBlock("a", np.arange(4), 4)
        assert len(self._events(place, url)) == 2

    @pytest.mark.parametrize(
        "argv",
        [
            ["x.py", "--password", "hush-1234"],
            ["x.py", "--password=hush-1234"],
            ["x.py", "--db-passwd", "hush-1234", "in.tif"],
            ["x.py", "--token=hush-1234"],
            ["x.py", "--access_token", "hush-1234"],
            ["x.py", "--aws-secret-key", "hush-1234"],
            ["x.py", "--AWS-SECRET-ACCESS-KEY=hush-1234"],
            ["x.py", "--api-key", "hush-1234"],
            ["x.py", "-password", "hush-1234"],
            ["x.py", "AWS_SECRET_ACCESS_KEY=hush-1234"],
        ],
        ids=" ".join,
    )
    def test_secrets_are_masked(self, place, monkeypatch, argv):
        monkeypatch.setattr(sys, "argv", argv)
        url = place.new()
        with make(place.at(url), 9, a=("int32",)) as table:
            table.writeBlock("a", np.arange(9), 0)
            logged = table.getModificationLog("a")[0][2]
        for key, content in place.objects(url).items():
            assert b"hush" not in content, key
        assert logged[0] == "x.py"
        assert len(logged) == len(argv)
        option = argv[1].split("=")[0]
        assert logged[1].split("=")[0] == option
        assert logged[3:] == argv[3:]

    @pytest.mark.parametrize(
        "argv",
        [
            ["x.py", "--keep", "all", "--keep-going", "in.tif"],
            ["x.py", "in.tif", "out.tif", "-v"],
            ["x.py", "--year=2026"],
        ],
        ids=" ".join,
    )
    def test_the_rest_is_kept(self, place, monkeypatch, argv):
        monkeypatch.setattr(sys, "argv", argv)
        with make(place.at(place.new()), 9, a=("int32",)) as table:
            table.writeBlock("a", np.arange(9), 0)
            assert table.getModificationLog("a")[0][2] == argv

    def test_without_a_user_name(self, place, monkeypatch):
        """In containers, the user ID may be missing from passwd."""

        def nobody(*_):
            raise KeyError("uid not found")

        for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(pwd, "getpwuid", nobody)
        url = place.new()
        with make(place.at(url), 9, a=("int32",)) as table:
            table.writeBlock("a", np.arange(9), 0)
            [(_, user, _)] = table.getModificationLog("a")
        assert isinstance(user, str)
        assert self._events(place, url)[0][1] == user

    @pytest.mark.parametrize("argv", [None, [], ["x.py", os.fsdecode(b"\xff.tif")]], ids=ascii)
    def test_odd_command_lines(self, place, monkeypatch, argv):
        """An embedding program may set no argv, or one that is not text."""
        if argv is None:
            monkeypatch.delattr(sys, "argv")
        else:
            monkeypatch.setattr(sys, "argv", argv)
        with make(place.at(place.new()), 9, a=("int32",)) as table:
            table.writeBlock("a", np.arange(9), 0)
            assert len(table.getModificationLog("a")) == 1
            assert table.readBlock("a", 0, 9).tolist() == list(range(9))

    @pytest.mark.parametrize(
        "log",
        [[["yesterday", "me", ["x"]]], [["2026-01-01T00:00:00"]], "nothing", None, [5]],
        ids=str,
    )
    def test_a_log_that_is_none(self, place, log):
        """An invalid log is neither lost nor a reason to refuse values."""
        url = place.new()
        make(place.at(url), 9, a=("int32",)).close()
        place.edit(url)["RAT/a"].attrs["MODIFICATIONLOG"] = log
        with RatZarr(place.at(url)) as table:
            assert table.readBlock("a", 0, 1).tolist() == [0]

    def test_a_naive_time_is_utc(self, place):
        url = place.new()
        make(place.at(url), 9, a=("int32",)).close()
        place.edit(url)["RAT/a"].attrs["MODIFICATIONLOG"] = [["2026-01-02T03:04:05", "me", ["x"]]]
        with RatZarr(place.at(url), readOnly=True) as table:
            [(when, user, argv)] = table.getModificationLog("a")
        assert when == dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
        assert (user, argv) == ("me", ["x"])
