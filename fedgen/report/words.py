"""Plain words for the terms of a run: what a manager reads instead of a code."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Final

from fedgen.errors import Code

if TYPE_CHECKING:
    from collections.abc import Sequence

NOTHING: Final = "—"

MODELS: Final = {
    "tabular-vae": "A variational autoencoder for tables",
    "tabular-gan": "A generative adversarial network for tables",
    "image-vae": "A variational autoencoder for images",
    "image-gan": "A generative adversarial network for images",
}

UNITS: Final = {"record": "one record", "person": "one person, all records", "site": "one whole site"}

RELIES: Final = {
    "record": "a person whose one record was used",
    "person": "a person whose records were used",
    "site": "a site whose records were used",
}

LEARNS: Final = {
    "local": "anybody outside the site",
    "distributed": "anybody outside the sites",
    "central": "anybody but the coordinator",
}

TRUST: Final = {
    "local": ("each site", "before anything leaves the site"),
    "distributed": ("the sites together", "the coordinator sees only a sum that carries it"),
    "central": (
        "the coordinator",
        "which sees what every site sends in clear; others do not",
    ),
}

NO_ROUND: Final = "No round was finished, so there is no model."
OUTCOMES: Final = {
    "completed": ("Completed", "Every planned round was done."),
    "budget": (
        "Ended early: budget",
        "The next round would have spent more than is allowed. Nothing above the ceiling was spent.",
    ),
    "quorum": (
        "Ended early: too few sites",
        "Too few sites answered to go on. The last good model was kept.",
    ),
    "interrupted": (
        "Ended early: interrupted",
        "The run was stopped by hand. What was spent is recorded, and the run can be resumed.",
    ),
}

REFUSALS: Final = {
    Code.FAULT: "The site met a defect; its own log says which.",
    Code.MALFORMED: "A message could not be read.",
    Code.TOO_LARGE: "A message was over the size limit.",
    Code.UNKNOWN_SENDER: "A message came from a sender outside the roster.",
    Code.BAD_SIGNATURE: "A signature did not match.",
    Code.BAD_SEAL: "A sealed message could not be opened.",
    Code.WRONG_STUDY: "A message belonged to another study.",
    Code.WRONG_RECIPIENT: "A message was meant for somebody else.",
    Code.STALE_ROUND: "A message belonged to a round that is over.",
    Code.REPLAYED: "A message was sent a second time.",
    Code.OUT_OF_ORDER: "A message came at the wrong moment.",
    Code.WRONG_SHAPE: "An update had the wrong size.",
    Code.NOT_FINITE: "An update held a value that is not a number.",
    Code.NOT_ADMITTED: "The site has not admitted this study.",
    Code.NOT_APPROVED: "The site's owner has not approved this study, or took the approval back.",
    Code.STUDY_REFUSED: "The site's own rules do not allow this study.",
    Code.CONSENT: "Nobody at the site currently consents to this purpose.",
    Code.COHORT_TOO_SMALL: "Too few permitted records to hide one person among them.",
    Code.BUDGET: "The round would have spent more than the site allows.",
    Code.LEDGER: "The site's ledger could not be written or did not verify.",
    Code.DATA: "The site's data do not fit the declared schema.",
    Code.STORAGE: "The site's disk could not be used.",
    Code.LATE: "No answer came in the time allowed.",
    Code.DROPPED: "The site could not be reached.",
}

EXCLUSIONS: Final = {
    "consent-missing": "No consent on record",
    "consent-withdrawn": "Consent withdrawn",
    "consent-expired": "Consent expired",
    "consent-refused": "Consent refused",
    "consent-invalidated": "Consent found invalid",
    "purpose-not-consented": "Consent given for other purposes only",
    "objected": "Objection on record",
}

GLOSSARY: Final = (
    (
        "AUC",
        "How often a classifier ranks a positive case above a negative one. 0.5 is guessing, 1 is perfect.",
    ),
    ("Clipping", "Cutting each record's influence on the model to a fixed size, so that noise can cover it."),
    ("Coordinator", "The server that sums what sites send. It never sees a record."),
    (
        "Differential privacy",
        "A mathematical promise: what comes out is almost the same whether or not any one record was in.",
    ),
    ("Distance to the closest record", "How near a row comes to the most similar row among others."),
    ("ε (epsilon)", "How strong the promise is. Smaller is stronger; it adds up over rounds."),
    ("δ (delta)", "The small probability, set in advance, with which the promise may be weaker."),
    ("Held-out rows", "Real rows set aside before training, so that the generator never saw them."),
    ("Noise", "Random numbers added on purpose, so that no single record can be read from an update."),
    ("Privacy unit", "What the promise protects: one record, one person with all records, or one site."),
    ("Round", "One cycle: the coordinator sends the model, sites answer, their answers are summed."),
    ("Site", "A holder of data, such as a hospital. Its records never leave it."),
    ("Synthetic rows", "Rows written by the trained generator, not recorded from people."),
    (
        "Total variation distance",
        "The share of rows that would have to change to turn one distribution into another.",
    ),
    (
        "Train on synthetic, test on real",
        "A classifier learns from synthetic rows and is examined on real people it never saw.",
    ),
)


def refusal(code: str) -> str:
    """Return what a refusal code means, in one sentence; the code itself if it is unknown."""
    known = {member.value for member in Code}
    return REFUSALS.get(Code(code), code) if code in known else code


def exclusion(reason: str) -> str:
    """Return what a reason means, in a few words; the reason itself as words if it has no others."""
    return EXCLUSIONS.get(reason, reason.replace("-", " ").capitalize())


def duration(seconds: float) -> str:
    """Return wall seconds as a person would say them."""
    whole = max(0, round(seconds))
    if whole < 120:  # noqa: PLR2004 - seconds read well up to two minutes
        return f"{whole} s"
    if whole < 7200:  # noqa: PLR2004 - minutes read well up to two hours
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def rounded_up(value: float) -> str:
    """Return an upper bound with three decimals, never below ``value``."""
    return f"{ceil(round(value * 1000, 6)) / 1000:.3f}"


def some(names: Sequence[str], at_most: int = 3) -> str:
    """Return at most ``at_most`` names, and how many more there are."""
    more = len(names) - at_most
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:at_most])} and {more} more"


def ranges(rounds: Sequence[int]) -> str:
    """Return rounds as ranges: ``3, 7 to 9``."""
    out: list[list[int]] = []
    for number in sorted(set(rounds)):
        if out and number == out[-1][1] + 1:
            out[-1][1] = number
        else:
            out.append([number, number])
    return some([str(a) if a == b else f"{a} to {b}" for a, b in out], 6)


def percent(value: float | None) -> str:
    """Return a share with one decimal, or a dash."""
    return NOTHING if value is None else f"{100 * value:.1f}\u00a0%"
