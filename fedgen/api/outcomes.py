"""How a round becomes a line, and an early end an exit code; simulated or deployed, it is the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedgen.errors import BudgetExhausted, Code, QuorumLost, Refused
from fedgen.runs.journal import RoundLine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedgen.api.results import Session
    from fedgen.coordinator.coordinator import RoundRecord
    from fedgen.runs.folder import RunFolder


def line_of(done: RoundRecord, rejected: Mapping[str, str], epsilon: float | None) -> RoundLine:
    """Return the line of metrics.jsonl for a closed round."""
    return RoundLine(
        round=done.round,
        attempt=done.attempt,
        sites=done.sites,
        missing=dict(done.missing),
        rejected=dict(rejected),
        excluded={site: dict(counts) for site, counts in done.excluded.items() if counts},
        seconds=done.seconds,
        bytes_in=done.bytes_in,
        bytes_out=done.bytes_out,
        epsilon=epsilon,
        heldout_loss=done.heldout_loss,
    )


def is_consent_only(missing: Mapping[str, str]) -> bool:
    """Return whether every missing site is missing for want of consent, or of enough people who consent."""
    codes = set(missing.values())
    return Code.CONSENT in codes and codes <= {Code.CONSENT, Code.COHORT_TOO_SMALL}


def raise_for(outcome: str, session: Session, missing: Mapping[str, str]) -> None:
    """Turn an early end into its error; the folder already holds the last safe model and report.

    Args:
        outcome: How the run ended.
        session: Its session.
        missing: Site to code, of the last round that has missing sites.

    Raises:
        BudgetExhausted: The budget of the sites ended it.
        QuorumLost: Too few sites answered.
        Refused: Consent ended it.
    """
    folder, shared = session.folder, session.prepared.study.simulation.ledgers is not None
    if outcome == "budget":
        raise BudgetExhausted(
            f"the budget of the sites ended the run; {_kept(folder)}",
            where=folder.root,
            hint="see report.html" + ("; other studies spend on the same data" if shared else ""),
        )
    if outcome == "quorum" and is_consent_only(missing):
        raise Refused(
            f"consent ended the run: nobody, or too few, permit it at {len(missing)} sites "
            f"({', '.join(sorted(set(missing.values())))})",
            code=Code.CONSENT,
            where=folder.root,
            hint="check policy.purpose and the consent log; see report.html for each site's reason",
        )
    if outcome == "quorum":
        raise QuorumLost(
            f"too few sites answered; {_kept(folder)}",
            where=folder.root,
            hint="see report.html for each site's reason; go on with --resume",
        )


def _kept(folder: RunFolder) -> str:
    """Return what an early end left behind, as it is."""
    if folder.checkpoints_newest_first():
        return "the last safe model and its report are kept"
    return "no round was finished, so there is a report and no model"
