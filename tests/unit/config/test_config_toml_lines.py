"""The lines of TOML keys."""

from __future__ import annotations

import pytest

from fedgen.config.toml_lines import toml_lines

TEXT = """\
title = "x"

[data]
source = "a"          # = no key
sites = { count = 3, split = "iid" }
"quoted key" = 1
a.b.c = 2

[[simulation.faults]]
site = "site-01"

[[simulation.faults]]
site = "site-02"

[ data . inner ]
x = 1
"""


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ((), 1),
        (("title",), 1),
        (("data",), 3),
        (("data", "source"), 4),
        (("data", "sites"), 5),
        (("data", "sites", "split"), 5),
        (("data", "quoted key"), 6),
        (("data", "a"), 7),
        (("data", "a", "b", "c"), 7),
        (("simulation", "faults"), 9),
        (("simulation", "faults", 0, "site"), 10),
        (("simulation", "faults", 1), 12),
        (("simulation", "faults", 1, "site"), 13),
        (("data", "inner", "x"), 16),
    ],
)
def test_a_key_has_its_line(key: tuple[str | int, ...], line: int) -> None:
    assert toml_lines(TEXT).of(key) == line


def test_a_key_that_is_not_there_has_the_line_of_its_parent() -> None:
    assert toml_lines(TEXT).of(("data", "none")) == 3
    assert toml_lines(TEXT).of(("none",)) == 1
