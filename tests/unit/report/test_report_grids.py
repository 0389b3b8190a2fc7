"""Grids: one cell for each pair, site and round, told apart by more than colour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fedgen.report.grids import Cell, heat_map, status_grid

if TYPE_CHECKING:
    from collections.abc import Callable

NAMED = {"ident": "g", "title": "T", "desc": "D"}


def test_heat_map_has_one_cell_for_each_pair(parse: Callable[..., Any]) -> None:
    values = [[0, 0.1, 0.2], [0.1, 0, 0.4], [0.2, 0.4, 0]]
    tree = parse(heat_map(["a", "b", "c"], values, **NAMED))
    tips = [e.find("title").text for e in tree.iter("rect")]
    assert tips == ["b with a: 0.100", "c with a: 0.200", "c with b: 0.400"]
    shades = [float(e.get("fill-opacity")) for e in tree.iter("rect")]
    assert shades == sorted(shades)
    assert shades[-1] == 1


def test_heat_map_of_nothing_and_of_zeros(parse: Callable[..., Any]) -> None:
    assert heat_map(["a"], [[0]], **NAMED) == ""
    parse(heat_map(["a", "b"], [[0, 0], [0, 0]], **NAMED))


def test_heat_map_is_capped(parse: Callable[..., Any]) -> None:
    d = 40
    tree = parse(heat_map([f"c{i}" for i in range(d)], [[0.5] * d for _ in range(d)], at_most=10, **NAMED))
    assert len(list(tree.iter("rect"))) == 45


def test_status_grid_has_a_cell_for_each_site_and_round(parse: Callable[..., Any]) -> None:
    rows = [
        ("a", [Cell("took-part", "round 1: took part"), Cell("refused", "round 2: late")]),
        ("b", [Cell("absent", "x")] * 2),
    ]
    tree = parse(status_grid(rows, ["1", "2"], **NAMED))
    assert [e.get("class") for e in tree.iter("rect")] == [
        "status took-part",
        "status refused",
        *["status absent"] * 2,
    ]
    assert next(tree.iter("rect")).find("title").text == "round 1: took part"
    assert len(list(tree.iter("path"))) == 1  # the cross of the refusal
    texts = [e.text for e in tree.iter("text")]
    assert {"a", "b", "1", "2", "round"} <= set(texts)


def test_status_grid_without_rows_or_rounds(parse: Callable[..., Any]) -> None:
    parse(status_grid([], [], **NAMED))


def test_names_are_escaped(parse: Callable[..., Any]) -> None:
    nasty = "<i>x</i>"
    for drawn in (
        heat_map([nasty, nasty], [[0, 1], [1, 0]], **NAMED),
        status_grid([(nasty, [Cell("absent", nasty)])], [nasty], **NAMED),
    ):
        assert "<i>" not in drawn
        parse(drawn)
