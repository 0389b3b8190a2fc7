"""Why one record is decided as it is, and what would have to change; every answer is tried, none is guessed.

"What would have to change" is found by asking the engine again: without each event, and with each remedy the law
knows (a new consent, a lift, a document, another destination). What is reported is what the engine then said.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from fedgen.policy.calendar import moment_of
from fedgen.policy.codes import CODES, Code, Verdict
from fedgen.policy.columns import (
    LONG_AGO,
    NEVER,
    NULL,
    Action,
    Assessment,
    Basis,
    ConsentEvents,
    Destination,
    GivenBy,
    Records,
    Request,
    Right,
    RightsEvents,
    Subjects,
    Type,
)
from fedgen.policy.engine import Decision, SystemState, decide
from fedgen.policy.standing import Names, stand

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from fedgen.policy.packs import LoadedPack

Table = TypeVar("Table", ConsentEvents, RightsEvents, Records)
MOST_TOGETHER: Final = 3
_MOST_REMEDIES: Final = 10


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """One record with everything that speaks about it."""

    records: Records
    consent: ConsentEvents
    rights: RightsEvents
    subjects: Subjects
    request: Request
    packs: Mapping[str, LoadedPack]
    laws: Sequence[str] | None
    state: SystemState | None

    def ask(self) -> Decision:
        standing = stand(self.records.people, self.consent, self.rights, self.subjects, self.request)
        return decide(self.records, standing, self.request, self.packs, self.laws, self.state)


def explain(
    records: Records,
    row: int,
    consent: ConsentEvents,
    rights: RightsEvents,
    subjects: Subjects,
    request: Request,
    packs: Mapping[str, LoadedPack],
    laws: Sequence[str] | None = None,
    state: SystemState | None = None,
) -> dict[str, Any]:
    """Return, as JSON has it, why a record is decided as it is.

    Keys: ``decision``, ``reason_code``, ``rule``, ``law``, ``citation``; ``hits`` (every rule that hit, by precedence);
    ``events`` (what the engine could see of this person, and what each did: ``matters`` if the answer or a hit changes
    without it); ``remedies`` (smallest sets of changes after which the engine said allow); ``valid_until``.

    Guarantees:
        - Each remedy was tried on the engine and led to allow.
        - An event the engine could not know at K is not shown.

    Edge cases:
        - Allowed already: no remedy is sought. None found among single changes and sets of three: an empty list.

    Args:
        records: The table.
        row: Which record.
        consent: Consent events, with their identifiers.
        rights: Rights events, with their identifiers.
        subjects: Profiles.
        request: What is asked.
        packs: By law.
        laws: The laws that apply; None: every pack's.
        state: The engine's footing.
    """
    one = _take(records, np.array([row]))
    names = records.people[one.subject] if one.subject[0] != NULL else records.people[:0]
    one = replace(one, people=names, subject=np.where(one.subject == NULL, NULL, 0).astype(np.int32))
    known = Names.of(names, subjects)
    question = _Question(
        one,
        _of(consent, known.places(consent.people)[0]),
        _of(rights, known.places(rights.people)[0]),
        subjects,
        request,
        packs,
        laws,
        state,
    )
    decision = question.ask()
    said = decision.laws[decision.law[0]]
    code = CODES[decision.code[0]]
    hits = _hits(decision)
    first = next((hit for hit in hits if hit["code"] == code and hit["law"] == said.law), None)
    allowed = decision.verdict[0] == Verdict.ALLOW
    return {
        "decision": Verdict(decision.verdict[0]).name.lower(),
        "reason_code": str(code),
        "rule": None if first is None else first["rule"],
        "law": said.law,
        "citation": decision.citation(0),
        "hits": hits,
        "events": _events(question, decision),
        "remedies": [] if allowed else _remedies(question),
        "valid_until": _text(decision.valid_until),
    }


def _hits(decision: Decision) -> list[dict[str, Any]]:
    """Return every rule that hit, by law and precedence."""
    return [
        {"rule": rule.id, "code": rule.code, "law": said.law, "citation": rule.citation}
        for said in decision.laws
        for bit, rule in enumerate(said.rules)
        if int(said.hits[0]) >> bit & 1
    ]


def _outcome(decision: Decision) -> tuple[Any, ...]:
    return (int(decision.code[0]), *(int(said.hits[0]) for said in decision.laws))


def _take(table: Table, rows: NDArray[np.integer]) -> Table:
    """Return some rows of a table; what is not one value a row stays."""
    size = len(table)
    picked = {
        each.name: getattr(table, each.name)[rows]
        for each in fields(table)
        if each.name not in {"people", "alias", "alias_of"}
        and isinstance(getattr(table, each.name), np.ndarray)
        and len(getattr(table, each.name)) == size
    }
    return replace(table, **picked)


def _of(table: Table, people: NDArray[np.integer]) -> Table:
    """Return the events of some people."""
    wanted = np.zeros(len(table.people), dtype=bool)
    wanted[people] = True
    return _take(table, np.flatnonzero(wanted[table.subject]))


def _text(instant: int) -> str | None:
    try:
        return None if instant in {NEVER, LONG_AGO} else moment_of(instant).isoformat()
    except OverflowError:
        return None


def _events(question: _Question, decision: Decision) -> list[dict[str, Any]]:
    """Return the events that could be known, and whether the answer changes without each, or all like it."""
    before, result = _outcome(decision), []
    for name in ("consent", "rights"):
        table = getattr(question, name)
        word = table.action if name == "consent" else table.kind
        about = table.purpose if name == "consent" else table.scope
        for row in range(len(table)):
            if table.recorded[row] > question.request.horizon:
                continue
            alike = (word == word[row]) & (about == about[row])
            matters = any(
                _outcome(replace(question, **{name: _take(table, np.flatnonzero(keep))}).ask()) != before
                for keep in (np.arange(len(table)) != row, ~alike)
            )
            identifier = table.event_id[row].decode("utf-8", "replace") if len(table.event_id) else None
            known = Action if name == "consent" else Right
            number = int(word[row])
            result.append(
                {
                    "event_id": identifier,
                    "kind": known(number).name.lower() if number < len(known) else "unreadable",
                    "purpose": table.purposes[int(about[row])] if name == "consent" else None,
                    "effective_at": _text(int(table.effective[row])),
                    "recorded_at": _text(int(table.recorded[row])),
                    "matters": matters,
                }
            )
    return result


def _remedies(question: _Question) -> list[list[str]]:
    """Return the smallest sets of changes that lead to allow, as the engine says."""
    before = _outcome(question.ask())
    enough: list[tuple[str, Callable[[_Question], _Question]]] = []
    partial: list[tuple[str, Callable[[_Question], _Question]]] = []
    for name, change in _changes(question):
        outcome = change(question).ask()
        if outcome.verdict[0] == Verdict.ALLOW and not _only_sidesteps(outcome):
            enough.append((name, change))
        elif _outcome(outcome) != before:
            partial.append((name, change))
    useful = [*enough, *partial][:_MOST_REMEDIES]
    for size in range(1, MOST_TOGETHER + 1):
        found = []
        for chosen in itertools.combinations(useful, size):
            changed = question
            for _, change in chosen:
                changed = change(changed)
            if changed.ask().verdict[0] == Verdict.ALLOW:
                found.append([name for name, _ in chosen])
        if found:
            return found
    return []


def _only_sidesteps(decision: Decision) -> bool:
    """Say whether a row is let through by an exception, not by a plain allow."""
    return CODES[decision.code[0]] is not Code.ALLOW


def _changes(question: _Question) -> list[tuple[str, Callable[[_Question], _Question]]]:
    """Return the changes worth trying: events a person or a site may add, documents, and another destination."""
    request = question.request
    least = [
        purpose.min_notice_version or 1
        for each in question.packs.values()
        if (purpose := each.pack.purposes.get(request.purpose)) is not None
    ]
    version = max(least, default=1)

    def consent(by: GivenBy, *, explicit: bool = False) -> Callable[[_Question], _Question]:
        return lambda q: replace(q, consent=_granted(q, explicit=explicit, by=by, version=version))

    def right(kind: Right, by: GivenBy = GivenBy.SUBJECT) -> Callable[[_Question], _Question]:
        return lambda q: replace(q, rights=_lifted(q, kind, by))

    def row(**values: Any) -> Callable[[_Question], _Question]:
        return lambda q: replace(q, records=_with(q.records, **values))

    purposes = frozenset({request.purpose})
    tools = Destination("DE", safeguards=frozenset())
    goes = request.destination or Destination()
    changes = [
        (f"a new consent to {request.purpose} by the person", consent(GivenBy.SUBJECT)),
        (f"a new explicit consent to {request.purpose} by the person", consent(GivenBy.SUBJECT, explicit=True)),
        (f"a new consent to {request.purpose} by a parent", consent(GivenBy.PARENT)),
        ("the erasure request is cancelled", right(Right.ERASURE_REQUEST_CANCELLED)),
        ("every legal hold is released", right(Right.LEGAL_HOLD_RELEASED)),
        ("the restriction is lifted", right(Right.RESTRICTION_LIFTED)),
        ("the objection is rejected on compelling grounds", right(Right.OBJECTION_REJECTED)),
        ("the person opts in to sale after a notice of the conflict", right(Right.OPT_IN_SALE_SHARE)),
        ("a parent opts in to sale", right(Right.OPT_IN_SALE_SHARE, GivenBy.PARENT)),
        ("the limit on sensitive use is lifted", right(Right.LIMIT_SENSITIVE_LIFTED)),
        ("the purpose is named in the notice at collection", row(purpose_sets=(purposes,), collected_for=0)),
        ("a compatibility assessment is filed", row(compatible=True)),
        ("a condition of Art. 9(2) other than consent is recorded", row(art9_conditions=("j",), art9_condition=0)),
        ("a law that allows criminal-conviction data is recorded", row(criminal_law=True)),
        ("the record is corrected", row(inaccurate=False)),
        ("the lawful basis is recorded as consent", row(basis=int(Basis.CONSENT))),
        ("the destination is inside the EEA", lambda q: replace(q, request=replace(q.request, destination=tools))),
        (
            "standard contractual clauses and a transfer impact assessment are filed",
            lambda q: replace(
                q, request=replace(q.request, destination=replace(goes, safeguards=frozenset({"scc"}), tia=True))
            ),
        ),
    ]  # fmt: skip
    if question.records.type[0] != Type.RECORD:
        passed = row(assessment=int(Assessment.PASSED), assessed_at=request.time, assessment_until=NEVER)
        changes.append(("the artefact passes an anonymity assessment", passed))
    return changes


def _with(records: Records, **values: Any) -> Records:
    """Return a table of one row with some of its values changed."""
    changed: dict[str, Any] = {
        name: value if isinstance(value, tuple) else np.full_like(getattr(records, name), value)
        for name, value in values.items()
    }
    return replace(records, **changed)


def _granted(question: _Question, *, explicit: bool, by: GivenBy, version: int) -> ConsentEvents:
    """Return the person's consent events and a new grant, both clocks at T."""
    events, at = question.consent, question.request.time
    place, people = _place(question.records.people, events.people)
    purposes = (*events.purposes, question.request.purpose)
    when = min(at, question.request.horizon)
    return replace(
        events,
        people=people,
        purposes=purposes,
        subject=np.append(place[events.subject], place[-1]),
        purpose=np.append(events.purpose, len(purposes) - 1),
        action=np.append(events.action, np.uint8(Action.GIVEN)),
        explicit=np.append(events.explicit, explicit),
        given_by=np.append(events.given_by, np.uint8(by)),
        notice_version=np.append(events.notice_version, np.int32(version)),
        effective=np.append(events.effective, when),
        recorded=np.append(events.recorded, when),
        valid_until=np.append(events.valid_until, NEVER),
        seq=np.append(events.seq, NEVER),
        event_id=np.append(events.event_id, b"") if len(events.event_id) else events.event_id,
    )


def _lifted(question: _Question, kind: Right, by: GivenBy) -> RightsEvents:
    """Return the person's rights events and a new one, once for each scope there is, both clocks at T."""
    events = question.rights
    place, people = _place(question.records.people, events.people)
    scopes = np.arange(NULL, len(events.scopes), dtype=np.int32)
    n, when = len(scopes), min(question.request.time, question.request.horizon)
    return replace(
        events,
        people=people,
        subject=np.append(place[events.subject], np.full(n, place[-1])),
        kind=np.append(events.kind, np.full(n, kind, dtype=np.uint8)),
        scope=np.append(events.scope, scopes),
        exception=np.append(events.exception, np.full(n, NULL, dtype=np.int32)),
        given_by=np.append(events.given_by, np.full(n, by, dtype=np.uint8)),
        after_conflict_notice=np.append(events.after_conflict_notice, np.ones(n, dtype=bool)),
        effective=np.append(events.effective, np.full(n, when)),
        recorded=np.append(events.recorded, np.full(n, when)),
        seq=np.append(events.seq, np.full(n, NEVER)),
        event_id=np.append(events.event_id, np.full(n, b"")) if len(events.event_id) else events.event_id,
    )


def _place(
    mine: NDArray[np.bytes_], others: NDArray[np.bytes_]
) -> tuple[NDArray[np.int64], NDArray[np.bytes_]]:
    """Return where each of ``others``, and then ``mine``, stands in the people of both, and these people."""
    people, place = np.unique(
        np.concatenate((others, mine if len(mine) else np.array([b""]))), return_inverse=True
    )
    return place.reshape(-1), people
