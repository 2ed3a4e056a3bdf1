"""The conformance suite in zarr's stores and in fsspec's memory, and what only they have."""

import importlib
import pkgutil

import icechunk
import obstore.store
import pytest
from zarr.storage import MemoryStore, ObjectStore

from ratzarr import RatZarr
from tests.places import MemoryUrlPlace, StorePlace

from . import conformance
from .conformance import TableConformance


class InStores(TableConformance):
    """The suite knows names only: here they stand for paths in a store."""

    examples = 20

    @pytest.fixture(autouse=True)
    def handed_over(self, place, monkeypatch):
        class Handed(RatZarr):
            def __init__(self, filename, *args, **kwargs):
                super().__init__(place.at(filename), *args, **kwargs)

            @staticmethod
            def exists(filename, **kwargs):
                return RatZarr.exists(place.at(filename), **kwargs)

            @staticmethod
            def isValidRatZarr(filename, **kwargs):
                return RatZarr.isValidRatZarr(place.at(filename), **kwargs)

            @staticmethod
            def delete(filename, **kwargs):
                return RatZarr.delete(place.at(filename), **kwargs)

        for part in pkgutil.iter_modules(conformance.__path__, conformance.__name__ + "."):
            module = importlib.import_module(part.name)
            if hasattr(module, "RatZarr"):
                monkeypatch.setattr(module, "RatZarr", Handed)


class TestTablesInAMemoryStore(InStores):
    @pytest.fixture
    def place(self):
        store = MemoryStore()
        return StorePlace(store, str(store))


class TestTablesInObstore(InStores):
    @pytest.fixture
    def place(self):
        store = ObjectStore(obstore.store.MemoryStore())
        return StorePlace(store, str(store))


class TestTablesInIcechunk(InStores):
    @pytest.fixture
    def place(self):
        repository = icechunk.Repository.create(icechunk.in_memory_storage())
        return StorePlace(repository.writable_session("main").store, "IcechunkStore")


class TestTablesInMemoryByUrl(TableConformance):
    examples = 20

    @pytest.fixture
    def place(self):
        place = MemoryUrlPlace()
        yield place
        place.remove_all()
