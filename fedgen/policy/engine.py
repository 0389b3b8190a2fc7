"""Decide every row of a table at once, under one law or several.

``stand`` says where people stand, ``compile_pack`` turns dates into cut-offs, the rules compare; the first hit by
precedence names the decision, and every hit is kept as a bit. Several laws: quarantine over erase over deny over
allow (S9).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen.policy.calendar import (
    MICROSECONDS_A_DAY,
    CutOff,
    Period,
    birthdays,
    day_number,
    local_day,
    moment_of,
    start_of_day,
    zone,
)
from fedgen.policy.codes import CODES, NUMBER, VERDICTS, Code, Verdict
from fedgen.policy.columns import NEVER, NO_DAY, Destination
from fedgen.policy.registry import RULES, Rule
from fedgen.policy.rules import Facts, View
from fedgen.policy.rules_shared import MANDATORY, PREFIX, ambiguous, unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from fedgen.policy.columns import Records, Request
    from fedgen.policy.pack import Pack
    from fedgen.policy.packs import LoadedPack
    from fedgen.policy.standing import Standing

ENGINE: Final = "fedgen-engine/1"
_ALL_VERDICTS: Final = np.array(VERDICTS, dtype=np.uint8)
_SECOND: Final = 1_000_000
_BITS: Final = 64
_EARLIEST_ZONE: Final = 14 * 3_600_000_000


@dataclass(frozen=True, slots=True)
class SystemState:
    """What the engine must know of its own footing; None is "not asked for" and holds in tests and dry runs only.

    Attributes:
        store_synced_at: The last look at the consent store, microseconds since 1970.
        store_head: Its head's number now.
        store_head_seen: The greatest head ever seen here.
        clock_error: How far the clock is off at most, in seconds.
    """

    store_synced_at: int | None = None
    store_head: int | None = None
    store_head_seen: int | None = None
    clock_error: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LawDecision:
    """What one law says of each row.

    Attributes:
        law: Its name.
        pack: The pack that spoke; None if there was none.
        rules: In order of precedence; bit ``i`` of a row's hits is ``rules[i]``.
        code: Place in ``CODES`` of the first hit, uint8, shape ``(n,)``.
        hits: Every hit, uint64, shape ``(n,)``.
        faults: Rules that failed; the batch is quarantined.
    """

    law: str
    pack: LoadedPack | None
    rules: tuple[Rule, ...]
    code: NDArray[np.uint8]
    hits: NDArray[np.uint64]
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What is decided of each row.

    Guarantees:
        - ``permitted`` is exactly ``verdict == ALLOW``.
        - The counts sum to the number of rows.

    Attributes:
        request: What was asked.
        laws: Each law's say, in the order asked for.
        code: Place in ``CODES`` of what decides, uint8, shape ``(n,)``.
        verdict: :class:`~fedgen.policy.codes.Verdict`, uint8, shape ``(n,)``.
        law: Which of ``laws`` decides, uint8, shape ``(n,)``.
        valid_until: The earliest instant at which a decision could change, NEVER if none; for schedulers.
        drop_fields: Columns that were asked for and must not be read.
    """

    request: Request
    laws: tuple[LawDecision, ...]
    code: NDArray[np.uint8]
    verdict: NDArray[np.uint8]
    law: NDArray[np.uint8]
    valid_until: int
    drop_fields: frozenset[str] = field(default=frozenset())

    @property
    def permitted(self) -> NDArray[np.bool_]:
        """Which rows may be used, shape ``(n,)``."""
        return np.asarray(self.verdict == Verdict.ALLOW)

    @property
    def counts(self) -> dict[Code, int]:
        """How many rows each code decides; exact, and for the site alone."""
        found = np.bincount(self.code, minlength=len(CODES))
        return {code: int(n) for code, n in zip(CODES, found, strict=True) if n}

    def hit_codes(self, row: int) -> tuple[Code, ...]:
        """Return every code that hit a row under any law, what decides first."""
        first = CODES[self.code[row]]
        codes = dict.fromkeys([first])
        for said in self.laws:
            codes[CODES[said.code[row]]] = None
            bits = int(said.hits[row])
            codes.update(dict.fromkeys(r.code for i, r in enumerate(said.rules) if bits >> i & 1))
        return tuple(code for code in codes if code is not Code.ALLOW or code is first)

    def citation(self, row: int) -> str:
        """Return where the law says what decides a row; empty for a plain allow."""
        said = self.laws[self.law[row]]
        code = CODES[self.code[row]]
        bits = int(said.hits[row])
        found = (r.citation for i, r in enumerate(said.rules) if bits >> i & 1 and r.code is code)
        return next(found, "")


def decide(
    records: Records,
    standing: Standing,
    request: Request,
    packs: Mapping[str, LoadedPack],
    laws: Sequence[str] | None = None,
    state: SystemState | None = None,
) -> Decision:
    """Decide every row.

    Guarantees:
        - A null in any operand of a rule hits; a rule that fails quarantines the batch.
        - No pack, a pack nobody answers for, and a pack past its time deny.
        - A restriction more never turns a row from denied to allowed.

    Edge cases:
        ==============  =====================================
        no rows         an empty decision
        no law          refused by ``ValueError``
        ==============  =====================================

    Args:
        records: The rows, shape ``(n,)``.
        standing: Where their people stand, for this very request.
        request: What is asked.
        packs: By law.
        laws: The laws that apply, in order; None: every pack's.
        state: The engine's footing; None leaves it unchecked, for dry runs.

    Raises:
        ValueError: No law is asked for, or the standing is of other people.
    """
    asked = tuple(dict.fromkeys(packs if laws is None else laws))
    if not asked:
        raise ValueError("at least one law decides")
    if standing.people is not records.people and not np.array_equal(standing.people, records.people):
        raise ValueError("the standing is of other people than the records")
    view = View(records, standing, request)
    said, until, dropped = [], standing.next_change, frozenset[str]()
    for law in asked:
        loaded = packs.get(law)
        one, change, drop = _one_law(law, loaded, view, state or SystemState())
        said.append(one)
        until, dropped = min(until, change), dropped | drop
    code, which = said[0].code, np.zeros(len(records), dtype=np.uint8)
    verdict = _ALL_VERDICTS[code]
    for place, other in enumerate(said[1:], start=1):
        theirs = _ALL_VERDICTS[other.code]
        stricter = theirs > verdict
        code, verdict = np.where(stricter, other.code, code), np.where(stricter, theirs, verdict)
        which[stricter] = place
    return Decision(request, tuple(said), code, verdict, which, until, dropped)


def rules_of(pack: Pack) -> tuple[Rule, ...]:
    """Return a pack's rules by precedence; what makes a row undecidable cannot be turned off."""
    prefix = PREFIX.get(pack.law, PREFIX["baseline"])
    names = {*pack.rules, *(f"{prefix}-{name}" for name in MANDATORY)}
    return tuple(sorted((RULES[name] for name in names), key=lambda rule: (rule.precedence, rule.id)))


def compile_pack(pack: Pack, view: View) -> Facts:
    """Turn a pack's dates into what rows compare with, for one request."""
    request, place = view.request, zone(pack.tz)
    purpose = pack.purposes.get(request.purpose)
    goes_to = request.destination or Destination()
    permitted = request.purpose in pack.spi_permitted_purposes
    return Facts(
        pack=pack,
        cut_offs=tuple(_cut_off(pack, name, request.time) for name in view.records.retention_rules),
        min_notice=None if purpose is None else purpose.min_notice_version,
        direct_marketing=purpose is not None and purpose.direct_marketing,
        research=purpose is not None and purpose.research,
        known_purpose=purpose is not None or permitted,
        sensitive_permitted=permitted,
        stays_in=goes_to.country is not None and goes_to.country in pack.eea,
        adequate=is_adequate(pack, goes_to, local_day(request.time, place)),
        safeguarded=bool(goes_to.safeguards & frozenset(pack.safeguards)),
        admt_applies=pack.admt_applies_from is not None and moment_of(request.time) >= pack.admt_applies_from,
        minor_days=tuple(
            (_born_by(pack.minors[0], request.time, name), _born_by(pack.minors[1], request.time, name))
            for name in view.standing.zones
        ),
    )


def is_adequate(pack: Pack, goes_to: Destination, day: int) -> bool:
    """Say whether a decision of Art. 45 covers a destination on a day, for this importer."""
    return any(
        row.country == goes_to.country
        and day_number(row.from_) <= day
        and (row.until is None or day < day_number(row.until))
        and (row.requires is None or row.requires in goes_to.met)
        for row in pack.adequacy
    )


def system_code(loaded: LoadedPack, request: Request, state: SystemState) -> Code | None:
    """Return why nothing may be decided at all, or None."""
    pack, at = loaded.pack, request.time
    place = zone(pack.tz)
    if not loaded.trusted:
        return Code.PACK_SIGNATURE_INVALID
    if pack.in_force_to is not None and at >= start_of_day(pack.in_force_to, place):
        return Code.PACK_EXPIRED
    if state.clock_error is not None and not abs(state.clock_error) <= pack.max_clock_error:
        return Code.CLOCK_UNTRUSTED
    return _store_code(pack, at, state)


def _store_code(pack: Pack, at: int, state: SystemState) -> Code | None:
    """Return why the consent store may not be believed, or None."""
    heads = (state.store_head, state.store_head_seen)
    if heads[0] is not None and heads[1] is not None and heads[0] < heads[1]:
        return Code.STORE_ROLLBACK
    if state.store_synced_at is None:
        return None
    age = at - state.store_synced_at
    if age > pack.max_store_age * _SECOND:
        return Code.CONSENT_STORE_STALE
    # A look at the store that lies in the future says that a clock is wrong.
    return Code.CLOCK_UNTRUSTED if age < -pack.max_clock_error * _SECOND else None


def _one_law(
    law: str, loaded: LoadedPack | None, view: View, state: SystemState
) -> tuple[LawDecision, int, frozenset[str]]:
    """Return one law's say, when it could change, and the columns to drop."""
    n, at = len(view.records), view.request.time
    none = np.zeros(n, dtype=np.uint64)
    if loaded is None or at < start_of_day(loaded.pack.in_force_from, zone(loaded.pack.tz)):
        code = np.full(n, NUMBER[Code.NO_APPLICABLE_PACK], dtype=np.uint8)
        code[ambiguous(view, None)] = NUMBER[Code.SUBJECT_AMBIGUOUS]
        code[unreadable(view)] = NUMBER[Code.MALFORMED_RECORD]
        starts = NEVER if loaded is None else start_of_day(loaded.pack.in_force_from, zone(loaded.pack.tz))
        return LawDecision(law, loaded, (), code, none), starts, frozenset()
    stop = system_code(loaded, view.request, state)
    if stop is not None:
        code = np.full(n, NUMBER[stop], dtype=np.uint8)
        return LawDecision(law, loaded, (), code, none), NEVER, frozenset()
    pack = loaded.pack
    facts, rules = compile_pack(pack, view), rules_of(pack)
    said = _evaluate(law, loaded, rules, view, facts)
    outside = _outside(pack, view)
    if outside and view.request.strict_fields:
        denied = NUMBER[Code.PURPOSE_INCOMPATIBLE]
        code = np.where(_ALL_VERDICTS[said.code] == Verdict.ALLOW, np.uint8(denied), said.code)
        said = LawDecision(law, loaded, rules, code, said.hits, said.faults)
    return said, _next_change(pack, facts, view), outside


def _outside(pack: Pack, view: View) -> frozenset[str]:
    """Return the columns asked for that the purpose does not need (Art. 5(1)(c))."""
    purpose = pack.purposes.get(view.request.purpose)
    if view.request.fields is None or purpose is None or purpose.fields is None:
        return frozenset()
    return view.request.fields - frozenset(purpose.fields)


def _evaluate(law: str, loaded: LoadedPack, rules: tuple[Rule, ...], view: View, facts: Facts) -> LawDecision:
    """Ask every rule, least precedence last to first, so that the first one's code stays."""
    n = len(view.records)
    code, hits = np.full(n, NUMBER[Code.ALLOW], dtype=np.uint8), np.zeros(n, dtype=np.uint64)
    if len(rules) > _BITS:
        raise ValueError("more rules than bits")
    faults: list[str] = []
    for bit in range(len(rules) - 1, -1, -1):
        rule = rules[bit]
        try:
            mask = rule.test(view, facts)
            sound = mask.shape == (n,) and mask.dtype == np.bool_
        except Exception:  # noqa: BLE001 - whatever failed, the rule must not be skipped
            sound = False
        if not sound:
            faults.append(rule.id)
            continue
        if not mask.any():
            continue
        np.putmask(code, mask, np.uint8(NUMBER[rule.code]))
        np.bitwise_or(hits, np.uint64(1 << bit), out=hits, where=mask)
    if faults:
        code[:] = NUMBER[Code.MALFORMED_RECORD]
    return LawDecision(law, loaded, rules, code, hits, tuple(faults))


def _cut_off(pack: Pack, name: str, at: int) -> CutOff | None:
    row = pack.retention_rules.get(name)
    return None if row is None else CutOff.at_instant(Period.parse(row.period), zone(row.tz), at)


def _born_by(age: int, at: int, name: str) -> int:
    """Return the latest birth day of who has an age at an instant, by the calendar of a zone."""
    today = moment_of(at).astimezone(zone(name)).date()
    year = today.year - age
    try:
        return day_number(today.replace(year=year))
    except ValueError:  # 29 February, and that year has none: who was born on 28 February has the age
        return day_number((today - timedelta(days=1)).replace(year=year))


def _next_change(pack: Pack, facts: Facts, view: View) -> int:
    """Return the earliest instant after T at which this law could say something else, if no event is added."""
    request, rows = view.request, view.records
    at, place = request.time, zone(pack.tz)
    found = [NEVER]
    for number, cut in enumerate(facts.cut_offs):
        if cut is not None:
            name = pack.retention_rules[rows.retention_rules[number]].clock
            clock = getattr(rows, name)
            alone = len(facts.cut_offs) == 1
            found.append(cut.next_end(clock if alone else clock[rows.retention_rule == number]))
    days = [pack.in_force_to]
    if request.destination is not None:
        mine = [row for row in pack.adequacy if row.country == request.destination.country]
        days += [day for row in mine for day in (row.from_, row.until)]
    found += [start_of_day(day, place) for day in days if day is not None]
    if pack.admt_applies_from is not None:
        found.append(int((pack.admt_applies_from - moment_of(0)) / timedelta(microseconds=1)))
    if view.is_artefact.any():
        ends = np.concatenate((rows.retain_until, rows.assessed_at, rows.assessment_until))
        found.append(int(ends.min(initial=NEVER, where=ends > at)))
    if request.is_sale_or_share is not False:
        born = view.standing.birth_day[view.standing.birth_day != NO_DAY]
        for number, age in enumerate(pack.minors):
            grown = min((bounds[number] for bounds in facts.minor_days), default=NO_DAY)
            young = born[born > grown]
            if len(young):  # birthdays come in the order of birth
                turns = int(birthdays(young.min(keepdims=True), age)[0])
                found.append(max(at + 1, turns * MICROSECONDS_A_DAY - _EARLIEST_ZONE))
    return min(instant for instant in found if instant > at)
