"""The page: one safe file, well-formed, accessible, and the same bytes every time."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from typing import Any

import pytest

from fedgen.report.model import ReportModel
from fedgen.report.render import banners, render, sections, summary, tiles

NASTY = "<script>alert('1')</script>\"&<img src=x onerror=y>"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Every tag, attribute and text of a page; unbalanced tags fail."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {k: v or "" for k, v in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def named(self, *tags: str) -> list[dict[str, str]]:
        return [attrs for tag, attrs in self.tags if tag in tags]


@pytest.fixture(scope="module", params=["model", "bare", "images"])
def html(request: pytest.FixtureRequest) -> str:
    return render(request.getfixturevalue(request.param))


def test_page_is_balanced_and_has_its_parts(html: str) -> None:
    page = Page(html)
    assert html.lstrip().startswith("<!doctype html>")
    assert page.named("html")[0]["lang"] == "en"
    assert len(page.named("h1")) == 1
    assert len(page.named("title")) >= 1
    assert len(page.named("main")) == 1


def test_nothing_is_loaded_and_nothing_runs(html: str) -> None:
    page = Page(html)
    assert not page.named("script", "link", "iframe", "object", "embed", "form", "base")
    for _, attrs in page.tags:
        assert "style" not in attrs
        assert not [name for name in attrs if name.startswith("on")]
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            assert attrs.get(name, "#").startswith(("#", "data:image/png;base64,"))
    assert not re.search(r"@import|url\(|https?://", html)


def test_policy_allows_only_this_style_sheet(html: str) -> None:
    page = Page(html)
    policy = next(
        m["content"] for m in page.named("meta") if m.get("http-equiv") == "Content-Security-Policy"
    )
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "script-src" not in policy


def test_ids_are_unique_and_references_resolve(html: str) -> None:
    page = Page(html)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    wanted = [i for _, attrs in page.tags for i in attrs.get("aria-labelledby", "").split()]
    wanted += [attrs["href"].removeprefix("#") for attrs in page.named("a")]
    assert set(wanted) <= set(ids)


def test_drawings_and_tables_are_described(html: str) -> None:
    page = Page(html)
    for attrs in page.named("svg"):
        assert attrs.get("aria-labelledby") or attrs.get("aria-label") or attrs.get("aria-hidden") == "true"
    assert len(page.named("caption")) == len(page.named("table"))
    assert all("alt" in attrs for attrs in page.named("img"))
    assert all("scope" in attrs for attrs in page.named("th"))


def test_headings_go_down_one_step_at_a_time(html: str) -> None:
    levels = [int(tag[1]) for tag, _ in Page(html).tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))


def _poisoned(value: Any, key: str = "") -> Any:
    """Put hostile text in every free string of a model's JSON."""
    closed = {"outcome", "kind", "reference", "trained_on", "better", "pixels", "bucket", "cells", "version"}
    if key in closed:
        return value
    if isinstance(value, dict):
        return {k: _poisoned(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_poisoned(v, key) for v in value]
    if isinstance(value, str) and key not in {"synthetic", "reference"}:
        return NASTY + value
    return value


@pytest.mark.parametrize("name", ["model", "images"])
def test_everything_from_the_model_is_escaped(request: pytest.FixtureRequest, name: str) -> None:
    found = request.getfixturevalue(name)
    hostile = ReportModel.from_json(_poisoned(found.to_json()))
    assert hostile.study.startswith(NASTY)
    page = Page(render(hostile))
    clean = Page(render(found))
    assert [tag for tag, _ in page.tags if tag in {"script", "img"}] == ["img"] * len(clean.named("img"))
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert NASTY in "".join(page.text)


def test_same_model_same_bytes(model: ReportModel) -> None:
    assert render(model) == render(ReportModel.from_json(json.loads(json.dumps(model.to_json()))))


def test_bytes_do_not_depend_on_the_process(model: ReportModel) -> None:
    program = (
        "import sys, json, hashlib\n"
        "from fedgen.report.model import ReportModel\nfrom fedgen.report.render import render\n"
        "print(hashlib.sha256(render(ReportModel.from_json(json.load(sys.stdin))).encode()).hexdigest())"
    )
    document = json.dumps(model.to_json())
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            input=document,
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed, "LC_ALL": "C"},
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert digests == {hashlib.sha256(render(model).encode()).hexdigest()}


def test_no_epsilon_is_put_into_words(model: ReportModel) -> None:
    text = " ".join(Page(render(replace(model, promises=()))).text)
    assert not re.search(r"[εϵ]\s*(=|≤|<|of|is|at most)\s*\d", text)
    assert "A ready-made sentence about ε." in " ".join(Page(render(model)).text)


def test_sections_come_in_order_and_empty_ones_are_left_out(model: ReportModel, bare: ReportModel) -> None:
    assert [s.ident for s in sections(model)] == [
        "privacy",
        "spending",
        "participation",
        "refusals",
        "consent",
        "loss",
        "quality",
        "columns",
        "pairs",
        "samples",
        "comparison",
        "configuration",
        "verify",
        "glossary",
    ]
    assert [s.ident for s in sections(bare)] == ["privacy", "configuration", "glossary"]


def test_headline(model: ReportModel, bare: ReportModel) -> None:
    said = summary(model)
    assert said.startswith("A variational autoencoder for tables was trained on a test table")
    assert "simulated on one machine" in said
    assert "Purpose: research." in said
    assert summary(bare).startswith("A own-model model was to be trained on a table, at deployed sites.")
    assert summary(replace(bare, rounds_done=1)).startswith(
        "A own-model model was trained on a table, at deployed sites."
    )
    found = {tile.label: tile.value for tile in tiles(model)}
    assert found["Sites"] == "4 of 4"
    assert found["Rounds"] == "6 of 6"
    assert found["Protects"] == "one record"
    assert "Sites" not in {tile.label for tile in tiles(bare)}


def test_banners(model: ReportModel, bare: ReportModel) -> None:
    assert [b.tone for b in banners(model)] == ["info"]
    assert [b.tone for b in banners(bare)] == ["warn"]
    assert banners(bare)[0].text == "No round was finished, so there is no model."
    begun = banners(replace(bare, rounds_done=3))[0].text
    assert "Round 3 of 10 was the last." in begun
    assert "last good model" in begun
    exposed = replace(bare, about=replace(bare.about, private=False, why_not="Seeded noise."))
    assert [b.tone for b in banners(exposed)] == ["danger", "warn"]
    assert "Seeded noise." in banners(exposed)[0].text
    unsaid = replace(bare, about=replace(bare.about, private=False))
    assert "not drawn in a way that protects" in banners(unsaid)[0].text


@pytest.mark.parametrize("outcome", ["budget", "quorum", "interrupted"])
def test_every_early_end_is_on_top(bare: ReportModel, outcome: str) -> None:
    page = render(replace(bare, outcome=outcome))
    assert page.index("Ended early") < page.index("<main>")


def test_the_study_hash_stands_once_in_the_settings(model: ReportModel) -> None:
    twice = replace(model, configuration=(("study hash", model.study_hash), *model.configuration))
    assert render(model) == render(twice)


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(a: str, b: str) -> float:
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_meets_wcag_aa(scheme: str) -> None:
    """Text at least 4.5 to 1, marks at least 3 to 1 (WCAG 2.2, 1.4.3 and 1.4.11)."""
    css = files("fedgen.report").joinpath("templates", "report.css").read_text()
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", part)) for part in css.split("@media", 2)[:2]
    )
    colours = light if scheme == "light" else dark
    texts = [
        ("ink", "surface"),
        ("ink", "page"),
        ("muted", "surface"),
        ("muted", "page"),
        ("accent", "surface"),
    ]
    texts += [
        ("accent", "page"),
        ("accent", "soft"),
        ("muted", "soft"),
        ("ink", "soft"),
        ("limit", "surface"),
    ]
    texts += [(tone, f"{tone}-soft") for tone in ("info", "warn", "danger")]
    texts += [("on-refused", "refused"), ("on-heat", "heat"), ("warn", "soft")]
    for ink, paper in texts:
        assert _contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)
    for mark in ("made", "real", "refused", "heat", *(f"s{i}" for i in range(8))):
        assert _contrast(colours[mark], colours["surface"]) >= 3, mark
