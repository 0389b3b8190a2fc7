"""Histograms and bars: real beside synthetic, in the right sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fedgen.report.distributions import MAX_BINS, histogram, paired_bars

if TYPE_CHECKING:
    from collections.abc import Callable

NAMED = {"ident": "c", "title": "T", "desc": "D"}


def _pairs(text: str) -> list[tuple[float, float]]:
    return [tuple(float(v) for v in p.split(",")) for p in text.split()]


def test_histogram_draws_both_and_the_ends_of_the_axis(parse: Callable[..., Any]) -> None:
    tree = parse(histogram(["lo", "mid", "hi"], [0.5, 0.25, 0.25], [0.25, 0.25, 0.5], **NAMED))
    assert len(list(tree.iter("polygon"))) == 1
    line = _pairs(next(tree.iter("polyline")).get("points"))
    assert len(line) == 6
    assert line[0][1] > line[-1][1]  # the last bin is the higher one, and y grows downwards
    assert [e.text for e in tree.iter("text")] == ["50.0%", "lo", "mid", "hi"]


def test_histogram_without_reference_draws_synthetic_only(parse: Callable[..., Any]) -> None:
    tree = parse(histogram(["a", "b"], [], [0.5, 0.5], **NAMED))
    assert not list(tree.iter("polygon"))
    assert len(list(tree.iter("polyline"))) == 1


def test_histogram_merges_many_codes_and_keeps_the_sum(parse: Callable[..., Any]) -> None:
    n = MAX_BINS * 4
    tree = parse(histogram([str(i) for i in range(n)], [], [1 / n] * n, **NAMED))
    assert len(_pairs(next(tree.iter("polyline")).get("points"))) == 2 * MAX_BINS
    assert next(tree.iter("text")).text == f"{4 / n:.1%}"


@pytest.mark.parametrize("shares", [[1.0], [0.0], [0.0, 0.0]])
def test_histogram_of_few_or_empty_bins(parse: Callable[..., Any], shares: list[float]) -> None:
    parse(histogram(["a", "b"][: len(shares)], shares, shares, **NAMED))


def test_bars_have_lengths_in_proportion(parse: Callable[..., Any]) -> None:
    tree = parse(paired_bars(["a", "b"], [0.8, 0.2], [0.4, 0.6], **NAMED))
    real, made = (
        [float(e.get("width")) for e in tree.iter("rect") if e.get("class") == k]
        for k in ("real", "synthetic")
    )
    assert real[1] / real[0] == pytest.approx(0.25, abs=0.01)
    assert made[0] / real[0] == pytest.approx(0.5, abs=0.01)
    assert "60%" in [e.text for e in tree.iter("text")]


def test_bars_without_reference(parse: Callable[..., Any]) -> None:
    tree = parse(paired_bars(["a"], [], [1.0], **NAMED))
    assert [e.get("class") for e in tree.iter("rect")] == ["synthetic"]


def test_rare_categories_are_summed(parse: Callable[..., Any]) -> None:
    shares = [0.01] * 10 + [0.3, 0.6]
    tree = parse(paired_bars([f"k{i}" for i in range(12)], shares, shares, at_most=3, **NAMED))
    texts = [e.text for e in tree.iter("text")]
    assert texts[::2] == ["k10", "k11", "10 others"]
    assert texts[5] == "10%"


def test_names_are_escaped(parse: Callable[..., Any]) -> None:
    for drawn in (
        histogram(["<b>"] * 8, [], [1 / 8] * 8, **NAMED),
        paired_bars(["<b>"], [1.0], [1.0], **NAMED),
    ):
        assert "<b>" not in drawn
        parse(drawn)
