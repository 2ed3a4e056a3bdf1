"""Rows that can't fulfil an attribute filter, left out before GDAL sees them.

GDAL evaluates every filter itself, for each feature that it gets. It is enough to leave out rows
that it would certainly leave out, and a filter that is not understood leaves out nothing:

>>> kinds = {"area": "number", "class": "text"}
>>> test = parsed("area > 10 AND class LIKE 'w%'", kinds, "row")
>>> test(lambda name: (np.array([9, 10, 11]), None)).tolist()
[False, False, True]
>>> parsed("area > 10 AND other = 1", kinds, "row") is None
True

GDAL ignores a filter that it refuses, and then shows all rows. So a filter counts as understood
only if GDAL certainly accepts all of it.
"""

import ast
import re
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ROW", "Test", "Values", "parsed"]

Mask = NDArray[np.bool_]
Values = tuple[NDArray[Any], Mask | None]
"""Values, and which of them are missing."""
Read = Callable[[str], Values]
"""Takes the name of a field, or :data:`ROW` for the row numbers."""
Test = Callable[[Read], Mask | None]
"""Returns the rows that may fulfil a condition; None means all of them."""

ROW = ""
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'[^'\\]*')(?!')|"(?P<quoted>[^"\\]+)"(?!")|(?P<name>[A-Za-z_][A-Za-z0-9_]*)"""
    r"""|(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)(?![\w.])|(?P<sign><>|!=|<=|>=|[-+*(),=<>]))"""
)
# Python's words for SQL's. LIKE becomes an operator that SQL does not have.
_WORDS = {"and": "and", "or": "or", "not": "not", "in": "in", "is": "is", "null": "None"}
_SIGNS = {"=": "==", "<>": "!="}
_LARGEST = 2**63 - 1
_OWN_NAMES = {"FID": ROW} | dict.fromkeys(
    ("OGR_GEOMETRY", "OGR_STYLE", "OGR_GEOM_WKT", "OGR_GEOM_AREA")
)
"""GDAL's own names in filters. Only FID is understood."""


class _NotUnderstoodError(Exception):
    """A part of the filter may mean something else to GDAL."""


def parsed(text: str, kinds: Mapping[str, str], fid_name: str) -> Test | None:
    """Return the test of a filter in OGR SQL; None if it may keep any row.

    Parameters
    ----------
    text : str
        The filter.
    kinds : mapping
        Of each field, by name: ``"number"``, ``"text"``, or anything else for fields whose
        comparisons are left to GDAL.
    fid_name : str
        The name of the row numbers, besides FID.
    """
    try:
        parser = _Parser(kinds, fid_name)
        return parser.test(ast.parse(parser.translated(text), mode="eval").body)
    except (_NotUnderstoodError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None


class _Parser:
    """Makes tests of the syntax tree of an expression.

    Python's own parser makes the tree: both languages agree on the precedence of NOT, AND, OR and
    the comparisons. Names are replaced by ``n0``, ``n1``, ... because fields may have any name.
    """

    def __init__(self, kinds: Mapping[str, str], fid_name: str) -> None:
        self.kinds = dict(kinds)
        self.names: list[str] = []
        self.row_tests: set[Test] = set()
        """Tests of row numbers alone, which read no column."""
        self._fields = {"fid": ROW, fid_name.lower(): ROW} | {one.lower(): one for one in kinds}
        self.kinds[ROW] = "number"

    def translated(self, text: str) -> str:
        """Return a filter as an expression in Python."""
        words: list[str] = []
        place = 0
        text = text.rstrip()
        while place < len(text):
            found = _TOKEN.match(text, place)
            if found is None:
                raise _NotUnderstoodError
            place = found.end()
            words.append(self._word(found))
        while "between" in words:
            # Only with two literals: then the next AND belongs to it.
            start = words.index("between")
            middle = words.index("and", start)
            low, rest = words[start + 1 : middle], words[middle + 1 :]
            count = 2 if rest[:1] == ["-"] else 1
            words[start:] = [
                "in", "(", *low, ",", "...", ",", *rest[:count], ")", *rest[count:]
            ]  # fmt: skip
        _check(words)
        return " ".join(words)

    def _word(self, found: re.Match[str]) -> str:
        kind = found.lastgroup
        token = found[kind or 0]
        if kind == "text":
            return repr(token[1:-1])
        if kind == "number":
            return token
        if kind == "sign":
            return _SIGNS.get(token, token)
        lower = token.lower()
        if kind == "name":
            if lower in _WORDS:
                return _WORDS[lower]
            if lower in ("like", "ilike"):
                return "@"
            if lower == "between":
                return lower
        # GDAL prefers a name that is exactly this one to a field that differs in case.
        own = token in _OWN_NAMES and token not in self.kinds
        field = _OWN_NAMES[token] if own else self._fields.get(lower)
        if field is None:
            raise _NotUnderstoodError
        self.names.append(field)
        return f"n{len(self.names) - 1}"

    def test(self, node: ast.expr) -> Test | None:
        """Return the test of a condition; None if it may keep any row."""
        match node:
            case ast.BoolOp():
                return self._combined(node)
            case ast.UnaryOp(ast.Not(), operand):
                # The operand must be valid, but the opposite of a superset is of no use.
                self.test(operand)
                return None
            case ast.Compare(left, [operator], [right]):
                return self._comparison(left, operator, right)
            case ast.BinOp(left, ast.MatMult(), right):
                if self._kind(left) == "text" and _literal(right, str) is not None:
                    return None
        raise _NotUnderstoodError

    def _combined(self, node: ast.BoolOp) -> Test | None:
        found = [self.test(one) for one in node.values]
        tests = [one for one in found if one is not None]
        if isinstance(node.op, ast.Or):
            return _any_of(tests) if len(tests) == len(found) else None
        tests.sort(key=lambda one: one not in self.row_tests)
        return _all_of(tests) if tests else None

    def _comparison(self, left: ast.expr, operator: ast.cmpop, right: ast.expr) -> Test | None:
        field = self._field(left)
        if isinstance(operator, ast.Is | ast.IsNot):
            if field is None or not (isinstance(right, ast.Constant) and right.value is None):
                raise _NotUnderstoodError
            if field == ROW:
                return None
            return _is_null(field, wanted=isinstance(operator, ast.Is))
        if isinstance(operator, ast.In | ast.NotIn):
            if field is None:
                raise _NotUnderstoodError
            test = self._membership(field, right.elts if isinstance(right, ast.Tuple) else [right])
            return test if isinstance(operator, ast.In) else None
        if field is None:
            # A literal on the left; or two fields, or a calculation, which are left to GDAL.
            field, operator, right = self._field(right), _turned(operator), left
        kind = None if field is None else self.kinds[field]
        value = _literal(right, str) if kind == "text" else _literal(right, int, float)
        if field is None or value is None:
            if self._kind(left) != "number" or self._kind(right) != "number":
                raise _NotUnderstoodError
            return None
        if kind == "text":
            return self._text_test(field, operator, [value])
        if kind != "number":
            raise _NotUnderstoodError
        return self._number_test(field, operator, value)

    def _membership(self, field: str, items: list[ast.expr]) -> Test | None:
        kind = self.kinds[field]
        if len(items) == 3 and isinstance(items[1], ast.Constant) and items[1].value is ...:
            low, high = (_literal(one, int, float) for one in (items[0], items[2]))
            if kind != "number" or low is None or high is None:
                raise _NotUnderstoodError
            ends = ((ast.GtE(), low), (ast.LtE(), high))
            return _all_of([self._number_test(field, sign, value) for sign, value in ends])
        kinds = (str,) if kind == "text" else (int, float)
        values = [_literal(one, *kinds) for one in items]
        if kind not in ("text", "number") or any(value is None for value in values):
            raise _NotUnderstoodError
        if kind == "text":
            return self._text_test(field, ast.Eq(), values)
        return _any_of([self._number_test(field, ast.Eq(), value) for value in values])

    def _number_test(self, field: str, operator: ast.cmpop, value: float) -> Test:
        test = _number_test(field, operator, value)
        if field == ROW:
            self.row_tests.add(test)
        return test

    def _text_test(self, field: str, operator: ast.cmpop, values: list[Any]) -> Test | None:
        # GDAL ignores the case of ASCII letters.
        if not isinstance(operator, ast.Eq) or not all(value.isascii() for value in values):
            return None
        wanted = {value.lower() for value in values}

        def test(read: Read) -> Mask:
            texts, missing = read(field)
            found = np.fromiter((one.lower() in wanted for one in texts.tolist()), np.bool_)
            return found if missing is None else found & ~missing

        return test

    def _field(self, node: ast.expr) -> str | None:
        return self.names[int(node.id[1:])] if isinstance(node, ast.Name) else None

    def _kind(self, node: ast.expr) -> str:
        """Return the kind of a value: of a field, a number, or a sum or product of them."""
        field = self._field(node)
        if field is not None:
            return self.kinds[field]
        if _literal(node, int, float) is not None:
            return "number"
        match node:
            case ast.BinOp(left, ast.Add() | ast.Sub() | ast.Mult(), right):
                if self._kind(left) == self._kind(right) == "number":
                    return "number"
        raise _NotUnderstoodError


def _check(words: list[str]) -> None:
    """Refuse what Python accepts and SQL does not."""
    for place, (word, after) in enumerate(pairwise(words)):
        if word[0] in "'\"" and after[0] in "'\"":
            raise _NotUnderstoodError
        if word == "in":
            items = [one for one in words[place + 1 : words.index(")", place)] if one != "-"]
            is_list = items[:1] == ["("] and len(items) % 2 == 0 and set(items[2::2]) <= {","}
            if not is_list or {",", "("} & set(items[1::2]):
                raise _NotUnderstoodError


def _literal(node: ast.expr, *kinds: type) -> Any:
    """Return the value of a literal; None if it is none of these types."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _literal(node.operand, *kinds)
        return -value if isinstance(value, int | float) else None
    if not isinstance(node, ast.Constant) or type(node.value) not in kinds:
        return None
    if isinstance(node.value, int) and node.value > _LARGEST:
        raise _NotUnderstoodError
    return node.value


def _turned(operator: ast.cmpop) -> ast.cmpop:
    turned = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE}
    return turned.get(type(operator), type(operator))()


_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Eq: np.equal,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}


def _number_test(field: str, operator: ast.cmpop, value: float) -> Test:
    compare = _COMPARE.get(type(operator))

    def test(read: Read) -> Mask:
        values, missing = read(field)
        found: Mask
        if compare is None:
            # Versions of GDAL differ on whether NULL is unequal to a number.
            found = np.not_equal(_as_gdal(values, value), value)
            return found if missing is None else found | missing
        found = compare(_as_gdal(values, value), value)
        return found if missing is None else found & ~missing

    return test


def _as_gdal(values: NDArray[Any], value: float) -> NDArray[Any]:
    """Return values in the type in which GDAL compares them: double, or 64-bit integers."""
    both = values.dtype.kind in "iu" and isinstance(value, int)
    return values.astype(np.int64 if both else np.float64, copy=False)


def _is_null(field: str, *, wanted: bool) -> Test:
    def test(read: Read) -> Mask:
        values, missing = read(field)
        if missing is None:
            missing = np.zeros(len(values), np.bool_)
        return missing if wanted else ~missing

    return test


def _all_of(tests: list[Test]) -> Test:
    def test(read: Read) -> Mask | None:
        found: Mask | None = None
        for one in tests:
            mask = one(read)
            found = mask if found is None or mask is None else found & mask
            # The other columns need not be read.
            if found is not None and not found.any():
                return found
        return found

    return test


def _any_of(tests: list[Test]) -> Test:
    def test(read: Read) -> Mask | None:
        found: Mask | None = None
        for one in tests:
            mask = one(read)
            if mask is None:
                return None
            found = mask if found is None else found | mask
        return found

    return test
