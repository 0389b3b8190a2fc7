"""From the model to one self-contained page.

The page loads nothing and runs nothing: its content security policy allows its own style sheet by digest and
images inside the page, and refuses all else. Equal models give equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from markupsafe import Markup

from fedgen.report import data_sections as data
from fedgen.report import quality_sections as quality
from fedgen.report import run_sections as run
from fedgen.report import site_sections as sites
from fedgen.report import sum_sections as shared
from fedgen.report import words
from fedgen.report.model import TOOK_PART
from fedgen.report.views import Commands, Section, Table, Terms, Text, Tile

if TYPE_CHECKING:
    from jinja2 import Template

    from fedgen.report.model import ReportModel
    from fedgen.report.views import Block


def render(model: ReportModel) -> str:
    """Return the report as one HTML document.

    Guarantees:
        - The same model gives the same text.
        - No script, no external resource, no style attribute; everything from the model is escaped.
        - No ε is put into words: promises are shown as given.

    Args:
        model: What to show.
    """
    css = _read("report.css")
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    return _template().render(
        css=Markup(css),  # noqa: S704 - our own file
        policy=policy,
        model=model,
        summary=summary(model),
        tiles=tiles(model),
        banners=banners(model),
        sections=sections(model),
    )


def sections(model: ReportModel) -> tuple[Section, ...]:
    """Return the sections of the page, in order, without those that have nothing to say."""
    found = (
        run.promises(model),
        shared.sums(model),
        run.spending(model),
        sites.budgets(model),
        sites.participation(model),
        sites.refusals(model),
        sites.consent(model),
        run.loss(model),
        quality.scores(model),
        data.columns(model),
        data.pairs(model),
        data.samples(model),
        data.comparison(model),
        _configuration(model),
        _verify(model),
        _glossary(),
    )
    return tuple(section for section in found if section is not None)


def summary(model: ReportModel) -> str:
    """Return what was done, in two sentences."""
    about = model.about
    what = words.MODELS.get(about.model, f"A {about.model} model")
    simulated = ", simulated on one machine" if about.simulated else ", at deployed sites"
    purpose = f" Purpose: {about.purpose}." if about.purpose else ""
    trained = "was trained" if model.rounds_done else "was to be trained"
    return f"{what} {trained} on {about.data}{simulated}. No record left its site.{purpose}"


def tiles(model: ReportModel) -> tuple[Tile, ...]:
    """Return the key figures at the top of the page."""
    took = sum(TOOK_PART in site.cells for site in model.participation)
    who, how = words.TRUST.get(model.about.trust, (model.about.trust, ""))
    outcome, _ = words.OUTCOMES[model.outcome]
    found = [
        Tile("Outcome", outcome),
        Tile("Rounds", f"{model.rounds_done} of {model.rounds_planned}", words.duration(model.wall_s)),
        Tile("Protects", words.UNITS.get(model.about.unit, model.about.unit), "the privacy unit"),
        Tile("Noise added by", who, how),
    ]
    if model.participation:
        found.insert(1, Tile("Sites", f"{took:,} of {len(model.participation):,}", "took part at least once"))
    return tuple(found)


def banners(model: ReportModel) -> tuple[Text, ...]:
    """Return what a reader must know before anything else."""
    found = []
    if not model.about.private:
        why = model.about.why_not or "Its noise was not drawn in a way that protects anybody."
        said = f"{why} Treat every output of this run as if it were the original data."
        found.append(Text(said, tone="danger", strong="This run is not private."))
    if model.outcome != "completed":
        title, said = words.OUTCOMES[model.outcome]
        if model.rounds_done:
            said += f" Round {model.rounds_done} of {model.rounds_planned} was the last."
        else:
            said = words.NO_ROUND
        found.append(Text(said, tone="warn", strong=f"{title}."))
    if model.quality is not None or model.comparison is not None:
        said = (
            "It shows figures from real rows that no promise covers. It is meant for simulations and for the "
            "data-protection officer: do not publish it as it is."
        )
        found.append(Text(said, tone="info", strong="For internal use."))
    return tuple(found)


def _configuration(model: ReportModel) -> Section:
    """Return what was configured and what ran."""
    settings = model.configuration
    if model.study_hash not in dict(settings).values():
        settings = (("study hash", model.study_hash), *settings)
    blocks: list[Block] = [Table("Settings", ("Key", "Value"), settings)]
    if model.versions:
        blocks.append(Table("Software", ("Name", "Version"), model.versions))
    if model.artefacts:
        rows = tuple((a.path, a.sha256) for a in model.artefacts)
        blocks.append(Table("Files", ("Path", "SHA-256"), rows))
    lead = (
        "The study hash names the whole resolved study: equal hashes mean equal settings, down to the schema."
    )
    return Section("configuration", "Configuration", lead, tuple(blocks))


def _verify(model: ReportModel) -> Section | None:
    """Return how a reader can check the claims."""
    if not model.commands:
        return None
    lead = "Nothing on this page has to be believed. These commands recompute it from the files of the run."
    return Section("verify", "How to verify", lead, (Commands(model.commands),))


def _glossary() -> Section:
    """Return the terms of the page in plain words."""
    return Section("glossary", "Words used here", "", (Terms(words.GLOSSARY),))


@cache
def _template() -> Template:
    """Return the page template, with escaping on and undefined names refused."""
    from jinja2 import DictLoader, Environment, StrictUndefined

    environment = Environment(
        loader=DictLoader({"report.html.j2": _read("report.html.j2")}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html.j2")


def _read(name: str) -> str:
    """Return a file of ``templates/``."""
    return files("fedgen.report").joinpath("templates", name).read_text(encoding="utf-8")
