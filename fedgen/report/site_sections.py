"""The sections about the sites: who took part, who refused and why, whose records were left out."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from fedgen.report import words
from fedgen.report.charts import legend, meter
from fedgen.report.grids import Cell, status_grid
from fedgen.report.model import ABSENT, TOOK_PART, said_no
from fedgen.report.svg import element
from fedgen.report.views import Figure, Section, Table, Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedgen.report.model import ReportModel, SiteRounds
    from fedgen.report.views import Block

MAX_SITES: Final = 24  # rows of a grid or table; the rest is summed up in a sentence
MAX_OPEN: Final = 12  # a longer table of sites is folded away
MAX_COLUMNS: Final = 60  # more rounds share a column
MAX_CHANGES: Final = 60
LEVELS: Final = 4


def budgets(model: ReportModel) -> Section | None:
    """Return what each site's data have spent over all studies, or None where no ledger outlives the run."""
    if not model.budgets:
        return None
    table = Table(
        "Spent on each site's data over all studies, upper bounds",
        ("Site", "Other studies", "Spent by them", "Spent in all", "May be spent"),
        tuple((b.site, str(b.studies), b.others, b.total, b.ceilings) for b in model.budgets[:MAX_SITES]),
        numeric=(1,),
        folded=len(model.budgets) > MAX_OPEN,
    )
    lead = (
        "What was spent on a record never comes back, whoever spent it. Each site's ledger counts every study on "
        "its data, and no study can raise what the site allows."
    )
    return Section("budgets", "What the data have spent over all studies", lead, (table,))


def participation(model: ReportModel) -> Section | None:
    """Return who took part in which round, or None without a roster or before any round."""
    rounds = _rounds(model)
    if not model.participation or not rounds:
        return None
    shown = _shown(model.participation)
    size = max(1, -(-rounds // MAX_COLUMNS))
    columns = tuple(str(r) for r in range(1, rounds + 1, size))
    grid = status_grid(
        [(s.site, [_cell(s.cells, i, size) for i in range(0, len(s.cells), size)]) for s in shown],
        columns,
        ident="participation-grid",
        title="Participation by site and round",
        desc="One row per site, one column per round: took part, refused, or absent. Sums are in the table.",
    )
    key = legend(("took part", "refused", "absent"), swatches=("took-part", "refused", "absent"))
    caption = "" if size == 1 else f"Each column stands for {size} rounds; a refusal in any of them shows."
    table = Table(
        "Rounds by site",
        ("Site", "Declared size", "Took part", "Refused", "Absent"),
        tuple(_site_row(s) for s in shown),
        numeric=(1, 2, 3, 4),
        folded=len(shown) > MAX_OPEN,
    )
    blocks: list[Block] = [Figure(grid, caption=caption, key=key), table]
    if len(shown) < len(model.participation):
        rest = f"Shown are the {len(shown)} sites that took part least, of {len(model.participation):,}."
        blocks.append(Text(rest))
    lead = (
        "Each site decides by itself, every round. The declared size is a public figure of the roster, to two "
        "digits; no ε covers it."
    )
    return Section("participation", "Who took part", lead, tuple(blocks))


def refusals(model: ReportModel) -> Section | None:
    """Return refusals and silence by reason, or None before any round: nobody can refuse what was not asked."""
    if not model.participation or not _rounds(model):
        return None
    lead = (
        "A site may say no at any time, and a refusal is a result, not a fault. Only a code leaves the site, "
        "never anything that could describe a record."
    )
    no = _by_reason(
        model, "Refusals", {cell for site in model.participation for cell in site.cells if said_no(cell)}
    )
    silent = _by_reason(
        model,
        "No answer",
        {cell for site in model.participation for cell in site.cells if not said_no(cell)}
        - {TOOK_PART, ABSENT},
    )
    first: Block = no or Text("No site refused in any round.")
    return Section("refusals", "Refusals by reason", lead, (first, silent) if silent else (first,))


def _by_reason(model: ReportModel, heading: str, codes: set[str]) -> Table | None:
    """Return how often each of some codes came, from whom and when; None if none did."""
    times: Counter[str] = Counter()
    sites: dict[str, set[str]] = {}
    rounds: dict[str, list[int]] = {}
    for site in model.participation:
        for number, cell in enumerate(site.cells, start=1):
            if cell in codes:
                times[cell] += 1
                sites.setdefault(cell, set()).add(site.site)
                rounds.setdefault(cell, []).append(number)
    if not times:
        return None
    most = max(times.values())
    rows = tuple(
        (
            element("span", code) + element("small", words.refusal(code)),
            str(count),
            meter(count / most, floor=None, desc=f"{code}: {count}"),
            words.some(sorted(sites[code])),
            words.ranges(rounds[code]),
        )
        for code, count in sorted(times.items(), key=lambda item: (-item[1], item[0]))
    )
    return Table(heading, ("Reason", "Times", "", "Sites", "Rounds"), rows, numeric=(1,))


def consent(model: ReportModel) -> Section | None:
    """Return rows left out for want of consent, over rounds, or None if no site reported any."""
    if not model.exclusions and not model.packs:
        return None
    lead = (
        "Before every round each site looks up who consents to this purpose at that moment, so a withdrawal "
        "takes effect in the next round. Sites report coarse ranges only: no exact number of people leaves "
        "them, and a change within a range does not show."
    )
    known = _known(model)
    reasons = sorted({reason for (_, reason), said in known.items() if set(said.values()) != {"0"}})
    blocks: list[Block] = []
    for i, reason in enumerate(reasons):
        by_site = {site: said for (site, why), said in known.items() if why == reason}
        blocks.append(_exclusion_grid(by_site, reason, ident=f"consent-{i}", rounds=_rounds(model)))
    changes = _changes(known)
    if changes:
        table = Table(
            "When a range changed",
            ("Round", "Site", "Reason", "Before", "From this round on"),
            tuple(changes[:MAX_CHANGES]),
        )
        blocks.append(table)
    if not blocks:
        blocks.append(Text("Every record had consent in every round."))
    if not model.packs:
        return Section("consent", "Records left out for want of consent", lead, tuple(blocks))
    return Section("consent", "Records left out by policy", lead, (*_law(model, known), *blocks))


def _law(model: ReportModel, known: dict[tuple[str, str], dict[int, str]]) -> tuple[Block, ...]:
    """Return which packs decided, and where the law says what each reason rests on."""
    packs = Table(
        "Packs that decided (engineering input, not legal advice)",
        ("Law", "Pack", "SHA-256", "Signed off by"),
        tuple((it.law, it.name, it.sha256, it.signed_off_by or "nobody") for it in model.packs),
    )
    rows = []
    for it in model.reasons:
        said = {site: rounds for (site, reason), rounds in known.items() if reason == it.reason}
        hit = {site: [n for n, b in rounds.items() if b != "0"] for site, rounds in said.items()}
        seen = sorted(site for site, rounds in hit.items() if rounds)
        when = words.ranges([n for rounds in hit.values() for n in rounds])
        rows.append((it.code, "; ".join(it.citations) or words.NOTHING, words.some(seen), when))
    if not rows:
        return (packs,)
    table = Table("Reasons and where the law says so", ("Code", "Citation", "Sites", "Rounds"), tuple(rows))
    return packs, table


def _rounds(model: ReportModel) -> int:
    """Return how many rounds the grids have; a round that was tried and not saved is one of them."""
    tried = max((len(site.cells) for site in model.participation), default=0)
    return max(model.rounds_done, tried, *(e.round for e in model.exclusions), 0)


def _shown(sites: Sequence[SiteRounds]) -> list[SiteRounds]:
    """Return all sites, or those that took part least if there are too many."""
    if len(sites) <= MAX_SITES:
        return list(sites)
    return sorted(sites, key=lambda s: (s.cells.count(TOOK_PART), s.site))[:MAX_SITES]


def _cell(cells: Sequence[str], start: int, size: int) -> Cell:
    """Return the cell of a group of rounds: a refusal shows before an absence."""
    group = cells[start : start + size]
    said = ", ".join(
        f"{'took part' if cell == TOOK_PART else cell}{f' x{n}' if size > 1 else ''}"
        for cell, n in Counter(group).items()
    )
    kinds = {"refused" if said_no(cell) else TOOK_PART if cell == TOOK_PART else ABSENT for cell in group}
    kind = next(k for k in ("refused", ABSENT, TOOK_PART) if k in kinds)
    span = f"round {start + 1}" if size == 1 else f"rounds {start + 1} to {start + len(group)}"
    return Cell(kind, f"{span}: {said}")


def _site_row(site: SiteRounds) -> tuple[str, ...]:
    """Return one line of the participation table."""
    took, refused = site.cells.count(TOOK_PART), sum(map(said_no, site.cells))
    size = words.NOTHING if site.declared_rows is None else f"{site.declared_rows:,}"
    return site.site, size, str(took), str(refused), str(len(site.cells) - took - refused)


def _lowest(bucket: str) -> int:
    """Return a number by which buckets are put in order, none first."""
    digits = "".join(c if c.isdigit() else " " for c in bucket).split()
    if bucket == "0" or not digits:
        return 0
    return 1 if bucket.startswith("<") else int(digits[0])


def _known(model: ReportModel) -> dict[tuple[str, str], dict[int, str]]:
    """Return by site and reason the bucket of each round in which the site answered; silence means none."""
    answered: dict[str, set[int]] = {}
    for site in model.participation:
        answered[site.site] = {i for i, cell in enumerate(site.cells, start=1) if cell == TOOK_PART}
    for e in model.exclusions:
        answered.setdefault(e.site, set()).add(e.round)
    said = {(e.site, e.round, e.reason): e.bucket for e in model.exclusions}
    pairs = dict.fromkeys((e.site, e.reason) for e in model.exclusions)
    return {
        (site, reason): {r: said.get((site, r, reason), "0") for r in sorted(answered[site])}
        for site, reason in pairs
    }


def _exclusion_grid(by_site: dict[str, dict[int, str]], reason: str, *, ident: str, rounds: int) -> Figure:
    """Return one grid: sites by rounds, darker for greater ranges."""
    buckets = sorted({b for said in by_site.values() for b in said.values()} - {"0"}, key=_lowest)
    level = {"0": 0} | {bucket: min(LEVELS, i + 1) for i, bucket in enumerate(buckets)}
    sites = [site for site, said in by_site.items() if set(said.values()) != {"0"}]
    size = max(1, -(-rounds // MAX_COLUMNS))
    rows = []
    for site in sites[:MAX_SITES]:
        cells = []
        for start in range(1, rounds + 1, size):
            seen = [by_site[site][r] for r in range(start, start + size) if r in by_site[site]]
            worst = max(seen, key=_lowest, default=None)
            kind = ABSENT if worst is None else f"level-{level[worst]}"
            cells.append(Cell(kind, f"round {start}: {'no answer' if worst is None else _named(worst)}"))
        rows.append((site, cells))
    title = words.exclusion(reason)
    grid = status_grid(
        rows,
        [str(r) for r in range(1, rounds + 1, size)],
        ident=ident,
        title=f"{title}, by site and round",
        desc="One row per site, one column per round; darker cells stand for more records left out.",
    )
    swatches = [f"level-{level[b]}" for b in ("0", *buckets)] + [ABSENT]
    hidden = len(sites) - MAX_SITES
    return Figure(
        grid,
        heading=title,
        caption=f"{hidden} more sites are not drawn." if hidden > 0 else "",
        key=legend(["none", *buckets, "no answer"], swatches=swatches),
    )


def _changes(known: dict[tuple[str, str], dict[int, str]]) -> list[tuple[str, ...]]:
    """Return each change of a site's range, in order of rounds."""
    rows = []
    for (site, reason), said in known.items():
        for (_, before), (number, after) in pairwise(said.items()):
            if before != after:
                rows.append((number, site, words.exclusion(reason), _named(before), _named(after)))
    return [(str(number), *rest) for number, *rest in sorted(rows)]


def _named(bucket: str) -> str:
    """Return a bucket as text for a person."""
    return "none" if bucket == "0" else bucket
