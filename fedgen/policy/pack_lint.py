"""What is wrong with a well-formed pack: rules that never hit, missing countries, rows that are over."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from fedgen.policy.registry import RULES
from fedgen.policy.rules_shared import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import date

    from fedgen.policy.pack import Pack


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of a pack.

    Attributes:
        level: ``error``: the pack decides wrongly or cannot be lawful. ``warning``: a person should look.
        key: Where in the file.
        what: The fault.
        hint: How to mend it.
    """

    level: Literal["error", "warning"]
    key: str
    what: str
    hint: str


# A rule whose question the pack's own facts answer with "never" only looks like protection.
_NEVER_HITS: Final[dict[str, tuple[Callable[[Pack], bool], str]]] = {
    "G-7.2": (
        lambda pack: (
            bool(pack.purposes) and all(p.min_notice_version is None for p in pack.purposes.values())
        ),
        "give a purpose a min_notice_version",
    ),
    "G-21m": (
        lambda pack: not any(p.direct_marketing for p in pack.purposes.values()),
        "mark the purposes that are direct marketing, or take the rule out",
    ),
    "C-ADMT": (lambda pack: pack.admt_applies_from is None, "set admt_applies_from"),
    "C-121": (
        lambda pack: bool(pack.purposes) and set(pack.purposes) <= set(pack.spi_permitted_purposes),
        "not every purpose can be a permitted use of sensitive information",
    ),
    "C-120c": (lambda pack: max(pack.minors) <= 0, "set the ages of minors"),
    "G-46t": (lambda pack: not pack.safeguards, "name the safeguards that count"),
}


def lint(pack: Pack, today: date) -> tuple[Finding, ...]:
    """Return what is wrong, errors first; empty: nothing.

    Args:
        pack: Well-formed.
        today: Rows that ended on or before it are over.
    """
    found = [*_rules(pack), *_countries(pack), *_dates(pack, today), *_channels(pack), *_words(pack)]
    return tuple(sorted(found, key=lambda finding: (finding.level != "error", finding.key)))


def _rules(pack: Pack) -> Iterator[Finding]:
    for name, times in Counter(pack.rules).items():
        rule = RULES.get(name)
        if rule is None:
            yield Finding("error", f"rules.{name}", "no such rule", "see docs/reference/policy-pack.md")
            continue
        if times > 1:
            yield Finding("error", f"rules.{name}", "stands twice", "keep one")
        if rule.law != (pack.law if pack.law in PREFIX else "baseline"):
            yield Finding(
                "error", f"rules.{name}", f"is a rule of {rule.law}", f"use the rules of {pack.law}"
            )
        never, hint = _NEVER_HITS.get(name, (None, ""))
        if never is not None and never(pack):
            yield Finding("warning", f"rules.{name}", "unreachable: the pack's facts never let it hit", hint)
    for rule in RULES.values():
        if rule.law == pack.law and rule.id not in pack.rules:
            yield Finding("warning", "rules", f"{rule.id} ({rule.code}) is off", "turn it on, or say why not")
    if not pack.retention_rules:
        yield Finding("error", "retention_rules", "there is none, so every record is malformed", "name one")
    if not pack.purposes:
        yield Finding("error", "purposes", "there is none, so nothing is allowed", "name one")


def _countries(pack: Pack) -> Iterator[Finding]:
    for country, times in Counter(pack.eea).items():
        if times > 1:
            yield Finding("warning", f"eea.{country}", "stands twice", "keep one")
        if "G-8" in pack.rules and not pack.child_age.get(country):
            yield Finding("error", f"child_age.{country}", "missing country", "give it its row of Art. 8(1)")
    for number, row in enumerate(pack.adequacy):
        if row.country in pack.eea:
            yield Finding(
                "warning", f"adequacy.{number}", "unreachable: the country is in eea", "take it out"
            )
    if "G-46" in pack.rules and not pack.eea:
        yield Finding("error", "eea", "empty, so everything is a transfer", "list the countries of the EEA")


def _dates(pack: Pack, today: date) -> Iterator[Finding]:
    if pack.in_force_to is not None and pack.in_force_to <= today:
        yield Finding(
            "error", "in_force_to", "the pack is over and denies everything", "bring a newer version"
        )
    for number, row in enumerate(pack.adequacy):
        key = f"adequacy.{number}"
        if row.until is not None and row.until <= row.from_:
            yield Finding("error", key, "ends before it begins", "check the days")
        elif row.until is not None and row.until <= today:
            yield Finding(
                "warning", key, f"expired row for {row.country}", "renew it, or keep it for replays only"
            )
        for other in pack.adequacy[:number]:
            same = (other.country, other.requires) == (row.country, row.requires)
            if (
                same
                and (other.until is None or other.until > row.from_)
                and (row.until is None or row.until > other.from_)
            ):
                yield Finding(
                    "error", key, f"two rows for {row.country} hold on the same day", "end the older one"
                )
    for country, rows in pack.child_age.items():
        if len({row.from_ for row in rows}) < len(rows):
            yield Finding("error", f"child_age.{country}", "two rows from the same day", "keep one")
        if not rows:
            yield Finding("error", f"child_age.{country}", "no row", "give it one, or take it out")


def _channels(pack: Pack) -> Iterator[Finding]:
    for number, channel in enumerate(pack.grant_channels):
        if channel.withdrawal is None:
            yield Finding(
                "error",
                f"grant_channels.{number}",
                f"{channel.channel} has no withdrawal channel",
                "withdrawing is as easy as giving: GDPR Art. 7(3)",
            )
    if not pack.grant_channels:
        yield Finding(
            "error", "grant_channels", "there is none", "name each way to consent, and the way back"
        )


def _words(pack: Pack) -> Iterator[Finding]:
    if "not legal advice" not in pack.notice:
        yield Finding("error", "notice", "does not say that it is not legal advice", "say so")
    if pack.signed_off_by is None:
        yield Finding(
            "warning", "signed_off_by", "nobody took responsibility", "let counsel read and sign it off"
        )
    told = {source.table for source in pack.sources}
    for table in ("eea", "adequacy", "child_age", "purposes", "retention_rules"):
        if getattr(pack, table) and table not in told:
            yield Finding(
                "warning", f"sources.{table}", "this table names no source", "say where it comes from"
            )
