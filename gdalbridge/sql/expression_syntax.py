"""The syntax of expressions: columns, constants and functions of one row, without I/O.

DuckDB's own parser reads the expression (:mod:`gdalbridge.sql.expressions`). This module examines
the resulting tree and accepts only operations known to be safe: no subqueries, tables or
aggregates (an aggregate would cover a single block), and nothing whose result varies between
calls. In the accepted tree, our own names replace the columns', and decimal fractions are float64.
"""

import difflib
from collections.abc import Callable, Sequence
from typing import Any

from gdalbridge.errors import BridgeError
from gdalbridge.sql.text_growth import grows

__all__ = [
    "FUNCTIONS",
    "Rewriter",
    "arguments_of",
    "as_type",
    "function_of",
    "one_expression",
    "text_constant",
    "with_columns",
]

type Node = dict[str, Any]

_NAMES = """
+ - * / // % ** ^ & | << >> ~ || ~~ !~~ ~~* !~~* ~~~ ^@ @ !__postfix
abs acos acosh add asin asinh atan atan2 atanh bit_count cbrt ceil ceiling cos cosh cot
degrees divide even exp factorial fdiv floor fmod gamma gcd greatest
greatest_common_divisor isfinite isinf isnan lcm least least_common_multiple lgamma ln
log log10 log2 mod multiply nextafter pi pow power radians round round_even roundbankers
sign signbit sin sinh sqrt subtract tan tanh trunc xor
if ifnull nullif
ascii bar char_length character_length chr concat concat_ws contains ends_with
damerau_levenshtein editdist3 format hamming hex instr jaccard jaro_similarity
jaro_winkler_similarity lcase left left_grapheme len length length_grapheme levenshtein
like_escape ilike_escape not_like_escape not_ilike_escape lower lpad ltrim md5 mismatches
nfc_normalize ord position prefix printf regexp_escape regexp_extract regexp_full_match
regexp_matches regexp_replace repeat replace reverse right right_grapheme rpad rtrim
sha256 split_part starts_with strip_accents strlen strpos substr substring
substring_grapheme suffix translate trim ucase unhex unicode upper
base64 bit_length decode encode from_base64 from_hex octet_length to_base64 to_hex
century date_add date_diff date_part date_sub date_trunc datediff datepart datesub
datetrunc day dayname dayofmonth dayofweek dayofyear days_in_month decade epoch epoch_ms
epoch_ns epoch_us hour isodow isoyear julian last_day make_date make_timestamp
microsecond millennium millisecond minute month monthname quarter second strftime
strptime time_bucket timezone to_days to_hours to_microseconds to_milliseconds to_minutes
to_months to_quarters to_seconds to_weeks to_years try_strptime week weekday weekofyear
year yearweek
"""
FUNCTIONS = frozenset(_NAMES.split())
"""The allowed functions."""

_CLASSES = {
    "BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT",
    "FUNCTION", "OPERATOR", "TYPE",
}  # fmt: skip
_OPERATORS = {
    "ARRAY_EXTRACT", "ARRAY_SLICE", "COMPARE_IN", "COMPARE_NOT_IN", "OPERATOR_COALESCE",
    "OPERATOR_IS_NOT_NULL", "OPERATOR_IS_NULL", "OPERATOR_NOT", "OPERATOR_NULLIF", "OPERATOR_TRY",
}  # fmt: skip
_ORDERINGS = {
    "COMPARE_BETWEEN", "COMPARE_GREATERTHAN", "COMPARE_GREATERTHANOREQUALTO", "COMPARE_LESSTHAN",
    "COMPARE_LESSTHANOREQUALTO", "COMPARE_NOT_BETWEEN",
}  # fmt: skip
_OTHER_WORDS = {
    "&&": "Write 'and' instead of &&",
    "||": "Write 'or' for conditions; || joins texts",
    "&": "Write 'and' for conditions; & is for the bits of integers",
    "|": "Write 'or' for conditions; | is for the bits of integers",
}
"""What to write for operators of other languages, which DuckDB reads as something else."""
_NAN_TESTS = {"isfinite", "isinf", "isnan"}
_UNBOUNDED_TYPES = {"BIGNUM", "BIT", "BITSTRING", "JSON", "VARIANT", "VARINT"}
"""For example, each bit becomes a character of text, and each character 8 bits."""
_WORDS = {
    "LAMBDA": "a lambda",
    "PARAMETER": "a parameter",
    "POSITIONAL_REFERENCE": "a column's number",
    "STAR": "a star",
    "SUBQUERY": "a query of its own (gdalbridge sql and Table.sql run queries)",
    "WINDOW": "a window function (it would see only one block)",
}
_NOTHING_ELSE = ("where_clause", "group_expressions", "group_sets", "having", "sample", "qualify")


def one_expression(parsed: Node, text: str) -> Node:
    """Return the expression in ``SELECT (expression)``, if it consists of nothing else.

    Raises
    ------
    BridgeError
        For an invalid expression. The message quotes DuckDB's parser, or names the excess part.
    """
    if parsed.get("error"):
        words = parsed.get("error_message")
        # DuckDB was given "SELECT (", the text, and a parenthesis on the next line.
        if parsed.get("position") == str(len("SELECT (") + len(text.encode()) + 1):
            words = "it ends too early, or its parentheses don't match"
        elif str(words).startswith("Chained comparisons"):
            wrong = next((one for one in _OTHER_WORDS if one in text), None)
            words = f"{words}. {_OTHER_WORDS[wrong]}" if wrong else words
        raise BridgeError(f"{text!r} is not an expression: {words}")
    statements = parsed.get("statements", [])
    node = statements[0].get("node", {}) if len(statements) == 1 else {}
    chosen = node.get("select_list", [])
    is_one = (
        node.get("type") == "SELECT_NODE"
        and len(chosen) == 1
        and not chosen[0].get("alias")
        and node.get("from_table", {}).get("type") == "EMPTY"
        and not node.get("modifiers")
        and not node.get("cte_map", {}).get("map")
        and not any(node.get(key) for key in _NOTHING_ELSE)
    )
    if not is_one:
        raise BridgeError(f"{text!r} is not a single expression")
    found: Node = chosen[0]
    return found


def text_constant(text: str) -> Node:
    """Return the tree of a text constant."""
    return _node("CONSTANT", "VALUE_CONSTANT", literal={"kind": "STRING", "text": text})


def as_type(child: Node, name: str) -> Node:
    """Return the tree of ``CAST(child AS name)``."""
    kind = _node(
        "TYPE", "TYPE", catalog="", schema="", type_name=name, children=[],
        qualified_name={"path": [name]},
    )  # fmt: skip
    return _node("CAST", "OPERATOR_CAST", child=child, try_cast=False, type_expr=kind)


def _node(kind: str, detail: str, **rest: Any) -> Node:
    where = {"query_location": 0, "query_location_length": 0}
    return {"class": kind, "type": detail, "alias": "", **where, **rest}


def function_of(node: Node) -> str:
    """Return the name of the function called by a tree."""
    return str(node.get("function_name")).lower()


def arguments_of(node: Node) -> list[Node]:
    """Return the trees of a call's arguments."""
    return [one["expression"] for one in node.get("arguments", [])]


def with_columns(node: Any, columns: Sequence[Node]) -> Any:
    """Return a tree with its columns ``a0``, ``a1``, ... replaced by other trees."""
    if isinstance(node, list):
        return [with_columns(one, columns) for one in node]
    if not isinstance(node, dict):
        return node
    if node.get("class") == "COLUMN_REF":
        return columns[int(str(node["column_names"][0])[1:])]
    return {key: with_columns(one, columns) for key, one in node.items()}


class Rewriter:
    """Checks an expression's tree, and replaces its column names by ours.

    Parameters
    ----------
    text : str
        The expression, for messages.
    column : callable
        Takes a column's name and returns the tree that replaces it; raises for an unknown name.
    kinds : callable
        Takes a function's name and returns DuckDB's kinds of it: ``aggregate``, ...
    """

    def __init__(
        self, text: str, column: Callable[[str], Node], kinds: Callable[[str], set[str]]
    ) -> None:
        self._text, self._column, self._kinds = text, column, kinds
        self.growing: list[Node] = []
        """Calls that can make long texts, as rewritten; inner calls before outer ones."""
        self.ordered: set[str] = set()
        """Columns that are less or greater than something in the expression."""
        self.nan_tested: set[str] = set()
        """Columns that the expression tests for NaN."""

    def expression(self, node: Node) -> Node:
        """Return the accepted tree, rewritten.

        Raises
        ------
        BridgeError
            For any operation that is not known to be safe; names it.
        """
        kind = node.get("class")
        if kind not in _CLASSES:
            raise self._refused(_WORDS.get(str(kind), f"a {str(kind).lower()}"))
        if kind == "OPERATOR" and node.get("type") not in _OPERATORS:
            raise self._refused(f"the operator {node.get('type')}")
        if kind == "COLUMN_REF":
            return self._column(self._one_name(node))
        if kind == "FUNCTION":
            self._check_function(node)
            if function_of(node) in _NAN_TESTS:
                self.nan_tested.update(self._names_in(node))
        if node.get("type") in _ORDERINGS:
            self.ordered.update(self._names_in(node))
        if kind == "TYPE":
            self._check_type(node)
            return node
        literal = node.get("literal")
        if kind == "CONSTANT" and isinstance(literal, dict) and literal.get("kind") == "NUMERIC":
            # DuckDB would use a DECIMAL, whose products overflow and which columns do not support.
            return as_type(text_constant(literal["text"].replace("_", "")), "DOUBLE")
        rewritten: Node = self._inside({k: v for k, v in node.items() if k != "class"})
        rewritten = {"class": kind} | rewritten
        if kind == "FUNCTION" and grows(function_of(rewritten)):
            self.growing.append(rewritten)
        return rewritten

    def _inside(self, value: Any) -> Any:
        if isinstance(value, dict):
            if "class" in value:
                return self.expression(value)
            return {key: self._inside(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._inside(item) for item in value]
        return value

    def _names_in(self, value: Any) -> set[str]:
        """Return the columns' names in a tree that is not rewritten."""
        if isinstance(value, dict):
            if value.get("class") == "COLUMN_REF":
                return {self._one_name(value)}
            value = list(value.values())
        if isinstance(value, list):
            return set().union(*map(self._names_in, value))
        return set()

    def _check_type(self, node: Node) -> None:
        # The other children of this node are sizes.
        name = str(node.get("type_name"))
        if name.upper() in _UNBOUNDED_TYPES:
            raise self._refused(f"the type {name}, which makes texts of any length")
        for child in node.get("children", []):
            if child.get("class") == "TYPE":
                self._check_type(child)

    def _one_name(self, node: Node) -> str:
        names = node.get("column_names", [])
        if len(names) != 1:
            dotted = ".".join(map(str, names))
            raise self._refused(f'{dotted} (a name with a point in it is written "{dotted}")')
        return str(names[0])

    def _check_function(self, node: Node) -> None:
        name = function_of(node)
        if node.get("schema") or node.get("catalog"):
            raise self._refused(f"a function of a schema ({name})")
        if len(node.get("qualified_name", {}).get("path", [name])) != 1:
            raise self._refused(f"a function of a schema ({name})")
        if name not in FUNCTIONS:
            raise self._refused(self._why_not(name))
        extra = node.get("filter") or node.get("distinct") or node["order_bys"]["orders"]
        named = any(one.get("name") for one in node.get("arguments", []))
        if extra or named:
            raise self._refused(f"{name} with further clauses")

    def _why_not(self, name: str) -> str:
        if name in ("&&", "!"):
            return f"{name}: write '{'and' if name == '&&' else 'not'}'"
        kinds = self._kinds(name)
        if "aggregate" in kinds:
            return (
                f"{name}(), an aggregate: it would see only one block (gdalbridge stats has "
                "aggregates of whole columns)"
            )
        if kinds:
            return f"the function {name}(), which is not allowed"
        near = difflib.get_close_matches(name, FUNCTIONS, 3)
        return f"the function {name}(), which does not exist" + (
            f": did you mean {' or '.join(near)}?" if near else ""
        )

    def _refused(self, what: str) -> BridgeError:
        return BridgeError(f"{self._text!r}: an expression can't have {what}")
