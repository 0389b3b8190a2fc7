"""However a file of lines is cut, what was whole stays, and writing goes on."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from fedgen.runs.lines import append_line, read_lines

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(values, max_size=6), st.data(), values)
def test_a_cut_costs_at_most_the_lines_it_reaches(
    written: list[object], draw: st.DataObject, after: object
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jsonl"
        ends = [0]
        for value in written:
            append_line(path, value)
            ends.append(path.stat().st_size)
        cut = draw.draw(st.integers(0, ends[-1]))
        path.write_bytes(path.read_bytes()[:cut] if path.exists() else b"")
        whole = sum(end <= cut for end in ends[1:])
        assert read_lines(path) == written[:whole]
        append_line(path, after)
        assert read_lines(path) == [*written[:whole], after]
