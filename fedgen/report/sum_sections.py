"""The section about sums that nobody sees through: who sees what, who was missing, how it was set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fedgen.report import words
from fedgen.report.views import Section, Table, Text

if TYPE_CHECKING:
    from fedgen.report.model import ReportModel, SumRound, Sums
    from fedgen.report.views import Block

MAX_ROUNDS: Final = 60  # of the table of rounds that were not plain

_MASKED: Final = (
    "Each site added a share of the noise to what it sent and masked it, so that the coordinator came to see one "
    "noised sum a round and nothing of a site by itself. What somebody can learn depends on how many sites help them: "
    "a site knows its own share of the noise."
)
_CLEAR: Final = (
    "Each site added a share of the noise to what it sent. Masks, which cancel in the sum, were left out: every sum "
    "has the bits it would have with them."
)


def sums(model: ReportModel) -> Section | None:
    """Return how sums were taken under distributed trust, or None under any other."""
    found = model.sums
    if found is None:
        return None
    blocks: list[Block] = []
    if not found.masked:
        said = "Whoever ran it could see what each site sent. With real sites use protocol: full."
        blocks.append(Text(said, tone="warn", strong="This was a rehearsal (protocol: sum)."))
    blocks.append(
        Table(
            "Who sees what, with upper bounds on ε against them",
            ("Who", "Sees", "Bound", "If the noise were Gaussian (an estimate, no bound)"),
            tuple((it.who, it.sees, it.bound, it.estimate) for it in found.observers),
        )
    )
    blocks += _rounds(found)
    blocks.append(Table("How sums were set up", ("Key", "Value"), found.settings))
    return Section("sums", "How sums were taken", _MASKED if found.masked else _CLEAR, tuple(blocks))


def _rounds(found: Sums) -> list[Block]:
    """Return how many sites were in each sum; rounds in which everybody was are counted only."""
    told = [it for it in found.rounds if it.missing or it.attempts > 1 or not it.survivors]
    plain = len(found.rounds) - len(told)
    text = Text(f"In {plain:,} of {len(found.rounds):,} rounds all {found.sites:,} sites were in the sum.")
    if not told:
        return [text]
    table = Table(
        "Survivors and dropouts, where a round was not plain",
        ("Round", "In the sum", "Missing", "Attempts"),
        tuple((str(it.round), _survivors(it), _missing(it), str(it.attempts)) for it in told[:MAX_ROUNDS]),
        numeric=(0, 3),
        folded=len(told) > MAX_ROUNDS // 4,
    )
    more = len(told) - MAX_ROUNDS
    return [text, table, *([Text(f"{more:,} more rounds are not shown.")] if more > 0 else [])]


def _survivors(it: SumRound) -> str:
    """Return how many sites were in a sum, or that there was none."""
    return f"{it.survivors:,}" if it.survivors else "lost: no sum was opened, the model stayed as it was"


def _missing(it: SumRound) -> str:
    """Return who was missing, with their number."""
    return f"{len(it.missing):,}: {words.some(it.missing)}" if it.missing else words.NOTHING
