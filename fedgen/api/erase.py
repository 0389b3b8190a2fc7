"""``erase``: one person out of a site's store, and out of whatever was made with them, step by step and with evidence.

The steps, each on the disk before the next: the request is written down and the person is out of every later round;
what is due elsewhere becomes a task; runs are rolled back; salt and profile go and a tombstone stays; a certificate
is signed. A killed erasure is taken up by the same command, or by the next sweep. Under a legal hold it waits after
the first step, and goes on when the hold is released.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from fedgen.api.certificate import commitment, new_opening, sign_certificate
from fedgen.api.due import RECORD
from fedgen.api.erasure_state import Stage, State, latest, load_all, save
from fedgen.api.rights import asked_for_erasure, is_held, open_desk
from fedgen.api.tracing import identities, outlook_for, remedy_run
from fedgen.errors import DataError
from fedgen.policy.calendar import Period, add, moment_of
from fedgen.policy.codes import Code
from fedgen.policy.remedy import Remedy
from fedgen.policy.store import RightSaid
from fedgen.policy.store.events import good_subject, good_text
from fedgen.policy.store.numbers import erased_at, find, find_by_ref, record_ids, tag
from fedgen.runs.atomic import write_json, write_text
from fedgen.runs.folder import open_run
from fedgen.runs.register import removals
from fedgen.runs.rollback import rollbacks
from fedgen.site.uses import read_uses

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from fedgen.api.rights import Desk
    from fedgen.policy.lineage import Span

MONTH: Final = Period(months=1, days=0)  # GDPR Art. 12(3)
_TASKS: Final = "erasure/"


@dataclass(frozen=True, slots=True)
class Erasure:
    """How an erasure stands.

    Attributes:
        state: ``done``, ``suspended`` (a legal hold stands), ``already`` (it was done before), ``open`` or ``dry_run``.
        id: Of the erasure; None in a dry run.
        runs: What each run folder needs, or needed.
        elsewhere: Runs that may have used the person and whose folder was not named.
        tasks: Numbers of tasks that are still open: rows in the site's own source, runs elsewhere.
        to_do: What each of them is, in words.
        records: Identifiers of the person's records, to be deleted from the site's own source.
        certificate: Where it lies; None as long as there is none.
        opening: To be given to the person, and kept nowhere; None unless the certificate was made just now.
    """

    state: str
    id: str | None
    runs: tuple[dict[str, Any], ...]
    elsewhere: tuple[dict[str, Any], ...]
    tasks: tuple[int, ...]
    to_do: tuple[str, ...]
    records: tuple[str, ...]
    certificate: Path | None
    opening: str | None

    @property
    def complete(self) -> bool:
        """Whether nothing is left to be done by anybody."""
        return self.state in {"done", "already"} and not self.tasks

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "state": self.state,
            "complete": self.complete,
            "id": self.id,
            "runs": list(self.runs),
            "elsewhere": list(self.elsewhere),
            "open_tasks": list(self.tasks),
            "to_do": list(self.to_do),
            "records": list(self.records),
            "certificate": None if self.certificate is None else str(self.certificate),
            "opening": self.opening,
        }


def erase(
    subject: str,
    store: str | os.PathLike[str],
    runs: Sequence[str | os.PathLike[str]] = (),
    *,
    exception: str | None = None,
    dry_run: bool = False,
    home: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
) -> Erasure:
    """Erase one person.

    Guarantees:
        - The person is out of every round that begins after the request is written down, whatever happens next.
        - Every checkpoint and release of the named runs gets a class; what has to go is gone, with evidence.
        - Killed at any instant, the same command goes on; done before, it changes nothing.
        - Nothing in the certificate tells the person's identifier to somebody who does not have the opening.

    Edge cases:
        ======================  =================================================================================
        a legal hold stands     the request is written down, nothing is removed; the sweep goes on after the release
        ``exception``           records, salt and profile are kept for that alone; models are dealt with as ever
        a stranger              a tombstone all the same: a later import finds it
        a run not named         a task, with the first round that has to be undone
        ======================  =================================================================================

    Args:
        subject: The person's identifier, or another name of theirs in the store.
        store: The site's consent store.
        runs: Run folders on this machine that may have used the person.
        exception: The provision that keeps the records, such as ``17(3)(b)``.
        dry_run: Touch nothing; tell what would have to be done.
        home: The site's folder; beside a SQLite store if left out.
        key: File of the store's secret; beside a SQLite store if left out.

    Raises:
        ConfigError: The store or a run folder is not one, or another process holds a folder; in the last case the
            person is out all the same.
        DataError: The identifier is not one.
    """
    if not good_subject(subject):
        raise DataError("names no person", key="subject_id", hint="1 to 128 bytes, no space around it")
    if exception is not None and not good_text(exception):
        raise DataError(
            "empty, padded or too long", key="exception", hint="name the provision, such as 17(3)(b)"
        )
    places = [_run_folder(run) for run in runs]
    with open_desk(store, home=home, key=key) as desk:
        if dry_run:
            return _foreseen(desk, subject, places)
        state = _request(desk, subject, places, exception)
        return _carry_out(desk, state)


def finish_suspended(desk: Desk, runs: Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    """Go on with every erasure that waited or was killed; return the ids of those that are done now.

    Args:
        desk: The open store.
        runs: Run folders to look at, beside those that were named at the request.
    """
    finished = []
    for state in load_all(desk.erasures):
        if state.stage is Stage.DONE or state.ref is None:
            continue
        named = [*state.runs, *(str(_run_folder(run)) for run in runs)]
        done = _carry_out(desk, replace(state, runs=tuple(dict.fromkeys(named))))
        if done.state == "done":
            finished.append(state.id)
    return tuple(finished)


# -- the request ------------------------------------------------------------------------------------------


def _request(desk: Desk, subject: str, runs: list[Path], exception: str | None) -> State:
    """Write the request down, once; from here on the person is out."""
    known = find(desk.store, subject)
    name = subject if known is None else known.name
    mark = tag(desk.store, name)[:32]
    state = latest(desk.erasures, mark)
    gone = known is None and erased_at(desk.store, name) is not None
    if state is None or (
        state.stage is Stage.DONE and not gone and not _stands(desk, name, state, exception)
    ):
        now = moment_of(desk.store.now())
        opening = new_opening()
        state = State(
            mark=mark,
            id=str(uuid.uuid4()),
            event_id=str(uuid.uuid4()),
            requested_at=now.isoformat(),
            exception=exception,
            commitment=commitment(opening, name),
            opening=opening,
        )
    if state.stage is Stage.DONE:
        return state
    state = replace(state, runs=tuple(dict.fromkeys([*state.runs, *map(str, runs)])))
    save(desk.erasures, state)
    if not gone:
        said = RightSaid(
            subject_id=name,
            kind="erasure_request",
            effective_at=datetime.fromisoformat(state.requested_at),
            event_id=state.event_id,
            exception=state.exception,
        )
        desk.store.record(said, source="fedgen erase")
    person = find(desk.store, name)
    if person is not None and state.ref is None:
        state = replace(state, ref=person.ref, number=person.number)
        save(desk.erasures, state)
    return state


def _stands(desk: Desk, name: str, state: State, exception: str | None) -> bool:
    """Return whether an earlier request under the same exception still stands; who came back has to ask anew."""
    return state.exception == exception is not None and asked_for_erasure(desk.store, name, desk.store.now())


def _carry_out(desk: Desk, state: State) -> Erasure:
    """Do what is left, in order."""
    if state.stage is Stage.DONE:
        return _report(desk, state, "already", None)
    person = None if state.ref is None else find_by_ref(desk.store, state.ref)
    if person is not None and is_held(desk.store, person.name, desk.store.now()):
        state = replace(state, stage=Stage.SUSPENDED)
        save(desk.erasures, state)
        return _report(desk, state, "suspended", None)
    state = replace(state, stage=Stage.OPEN)
    if state.records is None:
        records = record_ids(desk.store, state.ref) if state.ref is not None else ()
        state = replace(state, records=records if state.exception is None else ())
    save(desk.erasures, state)
    if state.exception is None:
        _open_source_tasks(desk, state)
    for run in state.runs:
        state = remedy_run(desk, state, Path(run))
        _by_hand(desk, state, state.results[run])
    state = _elsewhere(desk, state)
    if state.exception is None:
        state = _forget_identity(desk, state)
    return _certify(desk, state)


# -- elsewhere, and the store ------------------------------------------------------------------------


def _elsewhere(desk: Desk, state: State) -> State:
    """Open a task for each run that may have used the person and was not named."""
    if state.elsewhere is not None:
        return state
    here = {of for run in state.runs for of in identities(Path(run))}
    found: list[Span] = [] if state.number is None else list(read_uses(desk.uses).spans(state.number))
    left = [span for span in found if span.run not in here]
    for span in left:
        target = f"{_TASKS}{state.id}/run/{span.run}/from/{span.first}"
        _task(desk, target, str(Code.ARTEFACT_LINEAGE_REVOKED), state)
    told = tuple(
        {"study_hash": span.study, "run": span.run, "first_round": span.first, "last_round": span.last}
        for span in left
    )
    state = replace(state, elsewhere=told)
    save(desk.erasures, state)
    return state


def _open_source_tasks(desk: Desk, state: State) -> None:
    """Ask for the rows in the site's own source; fedgen has no hand in that."""
    reason = str(Code.ERASURE_REQUESTED)
    for record in state.records or ():
        _task(desk, RECORD + record, reason, state)
    _task(desk, f"{_TASKS}{state.id}/source", reason, state)


def _by_hand(desk: Desk, state: State, result: dict[str, Any]) -> None:
    """Ask a person to deal with a run that nothing here can mend."""
    if result["remedy"] == Remedy.UNSUPPORTED:
        target = f"{_TASKS}{state.id}/by-hand/{result['study_hash']}"
        _task(desk, target, str(Code.ARTEFACT_LINEAGE_REVOKED), state)


def _task(desk: Desk, target: str, reason: str, state: State) -> None:
    if not any(task["target"] == target and task["reason_code"] == reason for task in desk.store.tasks()):
        due = add(int(datetime.fromisoformat(state.requested_at).timestamp() * 1e6), MONTH, ZoneInfo("UTC"))
        desk.store.open_task(target, reason, due=due)


def _forget_identity(desk: Desk, state: State) -> State:
    """Delete salt and profile, and see that they are gone."""
    if state.identity is not None:
        return state
    person = None if state.ref is None else find_by_ref(desk.store, state.ref)
    if person is not None:
        desk.store.erase(person.name)
        if find(desk.store, person.name) is not None:  # read back, not assumed
            raise DataError("the person is still in the store", hint="try again; then restore the store")
    state = replace(state, identity=datetime.now(UTC).isoformat())
    save(desk.erasures, state)
    return state


# -- the certificate --------------------------------------------------------------------------------------


def _certify(desk: Desk, state: State) -> Erasure:
    """Sign what was done, and let go of the opening."""
    if state.opening is None:
        raise DataError("the erasure lost its opening", hint="ask for it again")
    body = {
        "id": state.id,
        "commitment": state.commitment,
        "requested_at": state.requested_at,
        "completed_at": datetime.now(UTC).isoformat(),
        "exception": state.exception,
        "records": _records_told(state),
        "identity": _identity_told(state),
        "runs": [_run_told(Path(root), result, state) for root, result in sorted(state.results.items())],
        "elsewhere": list(state.elsewhere or ()),
        "scope": "It says what was done to records, files and weights. It is no claim about what a model remembers.",
    }
    path = desk.certificates / f"{state.id}.json"
    write_json(path, sign_certificate(body, desk.key()), private=True)
    _note_public_key(desk)
    opening = state.opening
    state = replace(state, stage=Stage.DONE, opening=None)
    save(desk.erasures, state)
    return _report(desk, state, "done", opening)


def _records_told(state: State) -> dict[str, Any]:
    if state.exception is not None:
        return {
            "state": "kept",
            "code": str(Code.ERASURE_EXCEPTION_RETAIN),
            "use": "none but what the exception is for",
        }
    return {
        "state": "excluded",
        "code": str(Code.ERASURE_REQUESTED),
        "since": state.requested_at,
        "in_the_source": "a task of the site; fedgen does not write to a site's own source",
        "count_known": len(state.records or ()),
    }


def _identity_told(state: State) -> dict[str, Any]:
    if state.identity is None:
        return {"state": "kept"}
    return {
        "state": "deleted",
        "method": "salt, profile, other names and facts of records deleted and overwritten; a tombstone stays",
        "verified_at": state.identity,
    }


def _run_told(root: Path, result: dict[str, Any], state: State) -> dict[str, Any]:
    """Return what became of one run, with the evidence of each file; the place on this machine is not told."""
    folder, _study = open_run(root)
    since = datetime.fromisoformat(state.requested_at)
    evidence = {(it.path, it.sha256): it.to_json() for it in removals(folder) if it.at >= since}
    told = {name: value for name, value in result.items() if name not in {"run", "artefacts"}}
    told["artefacts"] = [
        {**it, "removal": evidence.get((it["path"], it["sha256"]))} for it in result["artefacts"]
    ]
    told["went_on_as"] = [it.next_run for it in rollbacks(folder) if it.at >= since]
    return told


def _note_public_key(desk: Desk) -> None:
    """Put the public key beside the certificates, for whoever verifies them."""
    path = desk.certificates / "public-key.hex"
    if not path.exists():
        write_text(path, desk.key().public.hex() + "\n")


# -- telling ----------------------------------------------------------------------------------------------


def _report(desk: Desk, state: State, how: str, opening: str | None) -> Erasure:
    """Return how an erasure stands."""
    own = {RECORD + record for record in state.records or ()}
    left = [
        task
        for task in desk.store.tasks(open_only=True)
        if task["target"].startswith(f"{_TASKS}{state.id}/") or task["target"] in own
    ]
    path = desk.certificates / f"{state.id}.json"
    return Erasure(
        state=how,
        id=state.id,
        runs=tuple(
            {"run": run, **{k: v for k, v in it.items() if k != "run"}}
            for run, it in sorted(state.results.items())
        ),
        elsewhere=tuple(state.elsewhere or ()),
        tasks=tuple(task["seq"] for task in left),
        to_do=tuple(_in_words(task["target"]) for task in left),
        records=tuple(state.records or ()),
        certificate=path if path.is_file() else None,
        opening=opening,
    )


def _in_words(target: str) -> str:
    """Return what a task asks for."""
    if target.startswith(RECORD):
        return f"delete record {target.removeprefix(RECORD)} from your own source"
    if target.endswith("/source"):
        return "delete the person's rows from your own source and tell whoever you gave them to"
    if "/by-hand/" in target:
        return "withdraw by hand what nobody can say the rounds of"
    return "tell the coordinator of the run from which round on it used them"


def _foreseen(desk: Desk, subject: str, runs: list[Path]) -> Erasure:
    """Return what an erasure would have to do; nothing is written."""
    person = find(desk.store, subject)
    number = None if person is None else person.number
    here = {of for run in runs for of in identities(run)}
    spans = [] if number is None else [it for it in read_uses(desk.uses).spans(number) if it.run not in here]
    return Erasure(
        state="dry_run",
        id=None,
        runs=tuple(outlook_for(desk, run, None if number is None else [number]).to_json() for run in runs),
        elsewhere=tuple(
            {"study_hash": it.study, "run": it.run, "first_round": it.first, "last_round": it.last}
            for it in spans
        ),
        tasks=(),
        to_do=(),
        records=() if person is None else record_ids(desk.store, person.ref),
        certificate=None,
        opening=None,
    )


def _run_folder(run: str | os.PathLike[str]) -> Path:
    """Return a run folder's absolute path, or say that it is none."""
    place = Path(run).resolve()
    open_run(place)
    return place
