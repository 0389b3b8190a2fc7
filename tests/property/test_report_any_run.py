"""Whatever a run did, its report renders: well-formed drawings, every refusal counted, and an exact JSON form."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree as ET

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedgen.errors import Code
from fedgen.report import words
from fedgen.report.charts import Line, line_chart
from fedgen.report.distributions import histogram, paired_bars
from fedgen.report.model import (
    ABSENT,
    CELLS,
    TOOK_PART,
    About,
    Exclusion,
    Promise,
    ReportModel,
    Series,
    SiteRounds,
)
from fedgen.report.render import render
from fedgen.report.site_sections import consent, refusals
from fedgen.report.svg import number, scale, ticks
from fedgen.report.views import Table

finite = st.floats(-1e299, 1e299, allow_nan=False)
names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=30)
buckets = st.sampled_from(["0", "<10", "10-99", "100-999", ">=100000"])


@st.composite
def shares(draw: st.DrawFn) -> tuple[list[str], list[float], list[float]]:
    k = draw(st.integers(1, 90))
    labels = draw(st.lists(names, min_size=k, max_size=k))
    two = [draw(st.lists(st.floats(0, 1), min_size=k, max_size=k)) for _ in range(2)]
    return labels, two[0] if draw(st.booleans()) else [], two[1]


@st.composite
def runs(draw: st.DrawFn) -> ReportModel:
    rounds = draw(st.integers(0, 9))
    cells = st.lists(st.sampled_from(sorted(CELLS)), min_size=rounds, max_size=rounds).map(tuple)
    sites = draw(st.lists(names, max_size=5, unique=True))
    spent = [sorted(draw(st.lists(st.floats(0, 50), min_size=rounds, max_size=rounds))) for _ in sites]
    some = st.builds(
        Exclusion, st.sampled_from(sites or ["x"]), st.integers(1, max(1, rounds)), names, buckets
    )
    return ReportModel(
        study=draw(names),
        study_hash="ab" * 32,
        outcome=draw(st.sampled_from(["completed", "budget", "quorum", "interrupted"])),
        rounds_done=rounds,
        rounds_planned=draw(st.integers(rounds, 20)),
        started=draw(names),
        wall_s=draw(st.floats(0, 1e6)),
        about=About(
            draw(names), draw(names), draw(names), draw(names), draw(names), simulated=True, private=False
        ),
        promises=tuple(draw(st.lists(st.builds(Promise, names, names, st.booleans()), max_size=2))),
        epsilon=tuple(
            Series(s, draw(names), tuple(range(1, rounds + 1)), tuple(v))
            for s, v in zip(sites, spent, strict=True)
        ),
        epsilon_allowed=draw(st.none() | st.floats(0, 50)),
        participation=tuple(
            SiteRounds(s, draw(st.none() | st.integers(0, 9999)), draw(cells)) for s in sites
        ),
        exclusions=tuple(draw(st.lists(some, max_size=8, unique_by=lambda e: (e.site, e.round, e.reason)))),
        configuration=tuple(draw(st.lists(st.tuples(names, names), max_size=2))),
    )


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(runs())
def test_every_run_renders_and_survives_json(model: ReportModel) -> None:
    page = render(model)
    assert render(ReportModel.from_json(json.loads(json.dumps(model.to_json(), allow_nan=False)))) == page
    for drawing in re.findall(r"<svg class=\"(?:chart|meter).*?</svg>", page, re.DOTALL):
        ET.fromstring(drawing)  # noqa: S314 - our own output
    assert "<script" not in page
    for promise in model.promises:
        assert promise.sentence in _text(page)


def _text(page: str) -> str:
    import html

    return html.unescape(page)


@given(runs())
def test_every_refusal_is_counted_once(model: ReportModel) -> None:
    section = refusals(model)
    wanted = sum(cell not in (TOOK_PART, ABSENT) for site in model.participation for cell in site.cells)
    rows = [row for b in section.blocks if isinstance(b, Table) for row in b.rows] if section else []
    assert sum(int(row[1]) for row in rows) == wanted


@given(runs())
def test_consent_is_shown_exactly_when_somebody_was_left_out(model: ReportModel) -> None:
    section = consent(model)
    assert (section is None) is (not model.exclusions)
    if section is not None:
        drawn = sum(b.block == "figure" for b in section.blocks)
        assert drawn == len({e.reason for e in model.exclusions if e.bucket != "0"})


@given(st.lists(finite, min_size=1, max_size=30), st.booleans(), st.none() | finite)
def test_every_line_stays_on_its_paper(values: list[float], from_zero: bool, limit: float | None) -> None:  # noqa: FBT001 - hypothesis gives it by place
    line = Line("a", tuple(range(1, len(values) + 1)), tuple(values))
    chart = line_chart(
        [line],
        ident="c",
        title="t",
        desc="d",
        y_label="y",
        limit=None if limit is None else (limit, "l"),
        from_zero=from_zero,
    )
    tree = ET.fromstring(str(chart))  # noqa: S314 - our own output
    _, _, width, height = (float(v) for v in tree.get("viewBox", "").split())
    for e in tree.iter("polyline"):
        for point in (e.get("points") or "").split():
            x, y = (float(v) for v in point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height


@given(shares())
def test_every_distribution_is_well_formed(found: tuple[list[str], list[float], list[float]]) -> None:
    labels, reference, synthetic = found
    for draw in (histogram, paired_bars):
        drawing = draw(labels, reference, synthetic, ident="c", title="t", desc="d")
        tree = ET.fromstring(str(drawing))  # noqa: S314 - our own output
        for bar in tree.iter("rect"):
            assert 0 < float(bar.get("width", "0")) <= 320


@given(finite, finite)
def test_ticks_lie_inside_and_are_few(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    found = ticks(low, high)
    room = 1e-6 * max(1.0, abs(low), abs(high))
    assert 1 <= len(found) <= 6
    assert all(low - room <= t <= high + room for t in found)


@given(finite)
def test_numbers_are_close_and_plain(value: float) -> None:
    text = number(value)
    assert abs(float(text) - value) <= 0.0051 + 1e-9 * abs(value)
    assert re.fullmatch(r"-?\d+(\.\d{1,2})?", text)


@given(st.floats(0, 1e4))
def test_bounds_are_never_understated(value: float) -> None:
    shown = float(words.rounded_up(value))
    assert value - 1e-9 <= shown <= value + 0.001 + 1e-9


@given(st.floats(0, 1), st.floats(0, 1))
def test_scale_keeps_order(a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    assert scale(0, 1, 0, 100, low) <= scale(0, 1, 0, 100, high)


@given(st.sampled_from(list(Code)))
def test_every_code_is_explained(code: Code) -> None:
    assert words.refusal(code.value) != code.value
