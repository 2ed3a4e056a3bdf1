"""Attributes of a table or a column, as a mapping that saves each change.

The mapping is an instance of zarr's ``Attributes`` class, because programs for the existing module
expect one. It differs in two ways. Each change is a compare-and-swap of the one attribute, so an
old instance does not undo changes by others. And attributes that follow from the table's state are
read-only.
"""

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from zarr.core.attributes import Attributes

from ratzarr.errors import ArgumentError
from ratzarr.format.names import Document
from ratzarr.stores.document import MetadataDocument

__all__ = ["LiveAttributes", "checked_attributes"]


class LiveAttributes(Attributes):
    """The attributes of one ``zarr.json``.

    Values are JSON: str, int, float, bool, None, and lists and dicts of these. NumPy scalars are
    converted to these. As in zarr-python, NaN and infinities are written as NaN and Infinity.

    Parameters
    ----------
    document : MetadataDocument
        The document that contains the attributes.
    own : frozenset of str
        Names of read-only attributes.
    guard : callable
        Called before each change; raises if changes are not allowed.
    """

    def __init__(
        self, document: MetadataDocument, own: frozenset[str], guard: Callable[[], None]
    ) -> None:
        # The parent's __init__ requires a Zarr array or group, and would write through it.
        self._live, self._own, self._guard = document, own, guard

    def __getitem__(self, key: str) -> Any:
        return copy.deepcopy(self._live.attributes[key])

    def __iter__(self) -> Iterator[str]:
        return iter(dict(self._live.attributes))

    def __len__(self) -> int:
        return len(self._live.attributes)

    def __contains__(self, key: object) -> bool:
        return key in self._live.attributes

    def __repr__(self) -> str:
        return repr(self.asdict())

    def asdict(self) -> dict[str, Any]:
        """Return a copy as a dict."""
        return copy.deepcopy(self._live.attributes)

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def __delitem__(self, key: str) -> None:
        def change(attributes: dict[str, Any]) -> None:
            if key not in attributes:
                raise KeyError(key)
            self._refuse_own(key)
            del attributes[key]

        self._change(change)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set several attributes at once. The arguments are those of ``dict.update``."""
        new = {key: _as_json(key, value) for key, value in dict(*args, **kwargs).items()}

        def change(attributes: dict[str, Any]) -> None:
            for key, value in new.items():
                if key not in attributes or not _same(attributes[key], value):
                    self._refuse_own(key)
                attributes[key] = value

        self._change(change)

    def put(self, d: Mapping[str, Any]) -> None:
        """Replace all attributes except those that follow from the table's state."""
        new = {key: _as_json(key, value) for key, value in d.items()}

        def change(attributes: dict[str, Any]) -> None:
            for key, value in new.items():
                if key in self._own and not (key in attributes and _same(attributes[key], value)):
                    self._refuse_own(key)
            kept = {key: value for key, value in attributes.items() if key in self._own}
            attributes.clear()
            attributes.update(kept | new)

        self._change(change)

    def clear(self) -> None:
        """Remove all attributes except those that follow from the table's state."""
        self.put({})

    def popitem(self) -> tuple[str, Any]:
        """Remove the attribute set last; return its name and value."""
        for key in reversed(self._live.attributes):
            if key not in self._own:
                return key, self.pop(key)
        raise KeyError("there is no attribute that can be removed")

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return an attribute; if it does not exist, set it to ``default`` first."""
        self._guard()
        return super().setdefault(key, default)

    def pop(self, key: str, *default: Any) -> Any:
        """Remove an attribute and return it; if it does not exist, return ``default``."""
        self._guard()
        return super().pop(key, *default)

    def _refuse_own(self, key: str) -> None:
        if key in self._own:
            raise ArgumentError(
                f"{self._live.place}: the attribute {key} follows from the table's state and "
                "can't be set or removed by hand"
            )

    def _change(self, change: Callable[[dict[str, Any]], None]) -> None:
        self._guard()

        def in_document(document: Document) -> bool:
            before = copy.deepcopy(document.setdefault("attributes", {}))
            change(document["attributes"])
            return not _same(before, document["attributes"])

        self._live.update(in_document)


def checked_attributes(attributes: Mapping[str, Any], own: frozenset[str]) -> dict[str, Any]:
    """Validate the attributes of a new document, and return them as JSON values.

    Raises
    ------
    ArgumentError
        If JSON can't hold a value, or a name is in ``own``.
    """
    for name in attributes:
        if name in own:
            raise ArgumentError(f"the attribute {name} follows from the table's state")
    return {name: _as_json(name, value) for name, value in attributes.items()}


def _same(one: Any, other: Any) -> bool:
    """Return True if two values are the same in JSON; 1, 1.0 and true differ there."""
    return json.dumps(one) == json.dumps(other)


def _as_json(key: object, value: Any) -> Any:
    """Return ``value`` as JSON, or raise if JSON would not preserve it."""
    if not isinstance(key, str) or not key or not _is_text(key):
        raise ArgumentError(f"the name of an attribute must be Unicode text; got {key!r}")
    return _checked(key, value)


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _checked(key: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | np.bool_):
        return None if value is None else bool(value)
    if isinstance(value, str):
        # JSON keeps only the text of a subclass (numpy.str_, an enumeration).
        text = str.__str__(value)
        if not _is_text(text):
            raise ArgumentError(f"attribute {key!r}: {text!r} is not Unicode text")
        return text
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.float16 | np.float32):
        # This includes NaN and infinities, which zarr-python reads and writes.
        return float(value)
    if isinstance(value, list | tuple):
        return [_checked(key, item) for item in value]
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str) or not _is_text(name):
                raise ArgumentError(f"attribute {key!r}: JSON has no keys like {name!r}")
        return {str(name): _checked(key, item) for name, item in value.items()}
    raise ArgumentError(
        f"attribute {key!r}: JSON can't hold {value!r}, a {type(value).__name__}; expected str, "
        "int, float, bool, None, or lists and dicts of these"
        + (" (convert an array with .tolist())" if isinstance(value, np.ndarray) else "")
    )
