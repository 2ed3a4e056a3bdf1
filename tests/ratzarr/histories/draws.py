"""What histories are made of: names, numbers, attributes."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition

NAMES = [
    "plain", "a/b", "%41", ".x", "zarr.json", "x" * 300, "größe 表", "__init__", "a\\b", "e\u0301",
    "c", "a%2Fb", "..", "line\nbreak", "A", "\U0001f600" * 60,
]  # fmt: skip
OWN = {"MODIFICATIONLOG", "NAME", "COMPLETE", "ROWS_DONE", "COLUMN_ID", "CUTTING", "CUTS",
       "RESIZED", "ROWCOUNT", "CHUNKSIZE", "COLUMN_ORDER", "FORMAT_VERSION", "RESIZE",
       "zarr_conventions"}  # fmt: skip
MAX_ROWS = 20

SLOTS = st.integers(0, 3)
WHICH = st.sampled_from([0, 0, 0, 1, 1, 2])
ROWS = st.integers(0, MAX_ROWS)
SEEDS = st.integers(0, 2**16)
# What shares no state with others need not fill the histories.
rarely = precondition(lambda self: self.step % 3 == 0)
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["unit", "größe", "NaN"]),
    st.sampled_from(
        [None, True, 1, 1.0, -0.0, 2**70, "", "表", [], [1, {"a": None}], {"b": [2.5]}]
    ),
    max_size=2,
)
