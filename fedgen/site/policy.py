"""A site's decisions under policy packs: from its consent store, record by record, before each round.

A desk answers the question that a consent log answers, and says on what it rested: which packs, which engine, which
instant, where the store stood. Nothing is computed again while the store stands where it stood and no instant has
passed at which an answer could change.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedgen.errors import Code, IntegrityError, Refused
from fedgen.policy.calendar import microseconds_of, moment_if_any
from fedgen.policy.codes import Code as Reason
from fedgen.policy.codes import Verdict, verdict_of
from fedgen.policy.columns import NEVER
from fedgen.policy.consent import Decision
from fedgen.policy.engine import ENGINE, decide
from fedgen.policy.evidence import mask_sha256
from fedgen.policy.run_gate import run_gate
from fedgen.policy.standing import stand
from fedgen.policy.store import chain
from fedgen.policy.store.chain import Head
from fedgen.policy.store.database import driver_rows
from fedgen.policy.store.rehearsal import is_rehearsal
from fedgen.runs.atomic import write_private
from fedgen.site.facts import OPERATION, records_of, request_of, run_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray

    from fedgen.config.policy import Stated
    from fedgen.data.encoded import EncodedTable
    from fedgen.messages import Train, Turn
    from fedgen.policy.columns import Records
    from fedgen.policy.packs import LoadedPack
    from fedgen.policy.store import ConsentStore
    from fedgen.site.admit import Admission

_MOST_HEAD: Final = 4096


@dataclass(frozen=True, slots=True)
class Ruling:
    """On what a decision rests, and what it counted; it names nobody, and its counts stay at the site.

    Attributes:
        time: T, microseconds since 1970.
        known_at: K, likewise.
        head: Where the consent store stood.
        purpose: What was asked.
        destination: Country the update goes to, or None.
        packs: ``(law, id, version, sha256)`` of each.
        considered: Rows.
        allowed: Rows that may be used.
        counts: Reason code to rows; they sum to ``considered``.
        mask: Digest of which rows may be used, hex.
    """

    time: int
    known_at: int
    head: Head
    purpose: str
    destination: str | None
    packs: tuple[tuple[str, str, str, str], ...]
    considered: int
    allowed: int
    counts: tuple[tuple[str, int], ...]
    mask: str


@dataclass(frozen=True, slots=True, eq=False)
class Judgement(Decision):
    """A decision with what it rests on."""

    ruling: Ruling


@dataclass(frozen=True, slots=True, eq=False)
class _Answer:
    """A judgement and what it holds for: rows, purpose, store, from ``since`` until before ``until``."""

    subjects: NDArray[np.bytes_]
    purpose: str
    standing: tuple[int, ...]
    since: int
    until: int
    judgement: Judgement

    def holds(self, subjects: NDArray[np.bytes_], purpose: str, standing: tuple[int, ...], at: int) -> bool:
        """Return whether the same answer is due."""
        same = self.subjects is subjects and self.purpose == purpose and self.standing == standing
        return same and self.since <= at < self.until


class PolicyDesk:
    """Decides for one site.

    Guarantees:
        - A row may be used only if every pack allows it.
        - A store that was rolled back, is stale, or whose clock is not to be trusted, denies every row, and so does a
          pack that nobody answers for or whose time is over; the code says which.
        - A store of a rehearsal decides nothing outside of a simulation.
        - The same question costs two look-ups while nothing changed.

    Args:
        store: Lends the site's consent store for the length of a block.
        packs: By law, at least one: the site's own and those a study adds.
        stated: What the site states of its rows and of the documents behind the run.
        head: File in which the site remembers where the store stood; None remembers it in this process.
        bring: In a simulation, brings in what has been learned by an instant; None in a deployment.
    """

    def __init__(
        self,
        store: Callable[[], AbstractContextManager[ConsentStore]],
        packs: Mapping[str, LoadedPack],
        stated: Stated,
        *,
        head: Path | None = None,
        bring: Callable[[ConsentStore, int], None] | None = None,
    ) -> None:
        if not packs:
            raise ValueError("at least one pack decides")
        self._store, self._packs, self._stated = store, dict(packs), stated
        self._path, self._bring = head, bring
        self._seen: Head | None = None
        self._records: tuple[NDArray[np.bytes_], Records] | None = None
        self._answer: _Answer | None = None

    @property
    def min_cohort(self) -> int:
        """The fewest persons that any of the packs lets hide among each other."""
        return max(loaded.pack.cohort_floor for loaded in self._packs.values())

    def check_pins(self, pins: Mapping[str, str]) -> None:
        """Refuse a study whose packs are not the site's, byte for byte.

        Raises:
            Refused: ``study-refused``: the site has no such pack, or another version.
        """
        have = {loaded.pack.id: loaded.sha256 for loaded in self._packs.values()}
        for name, digest in pins.items():
            if have.get(name) != digest:
                what = f"the study's pack {name} is not this site's"
                raise Refused(what, code=Code.STUDY_REFUSED, hint="agree on one version of the pack")

    def check_run(self, admission: Admission, now: datetime) -> None:
        """Ask the run gate: which documents are missing for this study now?

        Raises:
            Refused: ``study-refused``; the text, for the site alone, says what to file.
        """
        at = microseconds_of(now)
        purpose = admission.study.study.policy.purpose
        request = request_of(self._stated, purpose, at, at, None)
        missing = run_gate(run_facts(self._stated, admission), self._packs, request)
        if missing:
            first, more = missing[0], len(missing) - 1
            what = f"{first.code}: {first.mend}"
            if more:
                what += f"; and {more} more: {', '.join(sorted({str(it.code) for it in missing[1:]}))}"
            raise Refused(what, code=Code.STUDY_REFUSED, key=first.rule, hint=first.citation or None)

    def decide(self, table: EncodedTable, purpose: str, now: datetime, round_number: int) -> Judgement:
        """Return which rows may be used for ``purpose``, and why not the others.

        Args:
            table: The site's rows; they say whose they are.
            purpose: Compared exactly.
            now: T, with a zone.
            round_number: For the explanation.

        Raises:
            Refused: ``consent``: the rows do not say whose they are, or the store is a rehearsal's.
            IntegrityError: ``storage``: the store, or the memory of where it stood, is damaged.
        """
        subjects = table.subjects
        if subjects is None:
            raise Refused(
                "packs decide per person, and the rows do not say whose they are", code=Code.CONSENT
            )
        at = microseconds_of(now)
        with self._store() as store:
            if self._bring is not None:
                self._bring(store, at)
            head, goes_on, people = _look(store, self._last_seen())
            trouble = self._trouble(store) if goes_on else str(Reason.STORE_ROLLBACK)
            if trouble is not None:
                return self._denied(trouble, len(table), purpose, at, head)
            standing = (head.size, *people)
            known = self._answer
            if known is None or not known.holds(subjects, purpose, standing, at):
                known = self._decided(store, subjects, purpose, at, round_number, standing)
                self._answer = known
            self._remember(head)
        made = known.judgement.ruling
        ruling = replace(made, time=at, known_at=max(at, made.known_at))
        return replace(known.judgement, ruling=ruling)

    def note_round(self, ruling: Ruling, asked: Train | Turn, site: str, *, update: str | None) -> None:
        """Keep the summary of a round in the consent store (``decision_round``); None: the update was discarded."""
        summary = {
            "run_uid": asked.run,
            "round": asked.round,
            "attempt": asked.attempt,
            "client_ref": site,
            **entry_fields(ruling),
            "packs": [dict(zip(("law", "id", "version", "sha256"), it, strict=True)) for it in ruling.packs],
            "reasons": dict(ruling.counts),
            "update_sha256": update,
            "commit_check": {"discarded": update is None},
        }
        with self._store() as store:
            store.put_round(
                run_uid=asked.run,
                round_number=asked.round,
                attempt=asked.attempt,
                client_ref=site,
                known_at=ruling.known_at,
                store_head_seq=ruling.head.consent + ruling.head.rights,
                mask_sha256=ruling.mask,
                summary=summary,
            )

    def _decided(
        self,
        store: ConsentStore,
        subjects: NDArray[np.bytes_],
        purpose: str,
        at: int,
        round_number: int,
        standing: tuple[int, ...],
    ) -> _Answer:
        """Fold the events and ask every rule."""
        if self._records is None or self._records[0] is not subjects:
            self._records = subjects, records_of(self._stated, subjects)
        records = self._records[1]
        view = store.columns(subjects=records.people)
        request = request_of(self._stated, purpose, at, max(at, view.known_at), round_number)
        where = stand(records.people, view.consent, view.rights, view.subjects, request)
        found = decide(records, where, request, self._packs)
        counts = {str(code): n for code, n in sorted(found.counts.items())}
        judgement = self._judgement(
            found.permitted, counts, request.known_at or at, purpose, at, view.head, found.valid_until
        )
        return _Answer(subjects, purpose, standing, at, found.valid_until, judgement)

    def _denied(self, code: str, rows: int, purpose: str, at: int, head: Head) -> Judgement:
        """Return that no row may be used, for a reason that is nobody's own."""
        nobody = np.zeros(rows, dtype=bool)
        return self._judgement(nobody, {code: rows}, at, purpose, at, head, NEVER)

    def _judgement(
        self,
        permitted: NDArray[np.bool_],
        counts: dict[str, int],
        known_at: int,
        purpose: str,
        at: int,
        head: Head,
        until: int,
    ) -> Judgement:
        """Return a decision as the gate reads it, with what it rests on."""
        permitted.setflags(write=False)
        goes_to = None if self._stated.documents is None else self._stated.documents.destination
        ruling = Ruling(
            time=at,
            known_at=known_at,
            head=head,
            purpose=purpose,
            destination=None if goes_to is None else goes_to.country,
            packs=tuple(
                (law, it.pack.id, it.pack.version, it.sha256) for law, it in sorted(self._packs.items())
            ),
            considered=len(permitted),
            allowed=int(np.count_nonzero(permitted)),
            counts=tuple(counts.items()),
            mask=mask_sha256(permitted),
        )
        reasons = {
            slug(code): n for code, n in counts.items() if n and verdict_of(Reason(code)) is not Verdict.ALLOW
        }
        return Judgement(permitted, reasons, moment_if_any(until), ruling)

    # -- whether the store may be believed ---------------------------------------------------------------------------

    def _trouble(self, store: ConsentStore) -> str | None:
        """Return why nobody may be used now, as a reason code, or None."""
        if (
            self._bring is not None
        ):  # a rehearsal's clock is not the machine's, and its file was read just now
            return None
        if is_rehearsal(store):
            raise Refused("a rehearsal's consent store decides nothing here", code=Code.CONSENT)
        oldest = min(loaded.pack.max_store_age for loaded in self._packs.values())
        return store.trouble(stale_after=timedelta(seconds=oldest))

    def _last_seen(self) -> Head | None:
        """Return where the store stood when the site last decided."""
        if self._seen is None and self._path is not None:
            self._seen = _read_head(self._path)
        return self._seen

    def _remember(self, head: Head) -> None:
        """Keep where the store stands, so that an older copy is noticed whenever it comes back."""
        if head != self._seen:
            self._seen = head
            if self._path is not None:
                _write_head(self._path, head)


def slug(code: str) -> str:
    """Return a reason code as a message spells it: ``CONSENT_WITHDRAWN`` as ``consent-withdrawn``."""
    return str(code).lower().replace("_", "-")


def entry_fields(ruling: Ruling) -> dict[str, Any]:
    """Return a ruling as the ledger holds it."""
    return {
        "asked_at": ruling.time,
        "known_at": ruling.known_at,
        "store_batches": ruling.head.size,
        "store_digest": ruling.head.digest.hex(),
        "store_consent": ruling.head.consent,
        "store_rights": ruling.head.rights,
        "purpose": ruling.purpose,
        "operation": OPERATION,
        "destination": ruling.destination or "",
        "packs": ruling.packs,
        "engine": ENGINE,
        "considered": ruling.considered,
        "allowed": ruling.allowed,
        "reasons": ruling.counts,
        "mask": ruling.mask,
    }


def _look(store: ConsentStore, seen: Head | None) -> tuple[Head, bool, tuple[int, ...]]:
    """Return where a store stands, whether it goes on from ``seen``, and what changes with people; at one moment.

    The last changes whenever a profile, another name, or an erasure is added; events have the head.
    """
    query = (
        "SELECT (SELECT COALESCE(max(seq), 0) FROM subject_profile), (SELECT COALESCE(max(seq), 0) FROM subject_salt), "
        "(SELECT count(*) FROM subject_alias), (SELECT COALESCE(max(seq), 0) FROM suppression), "
        "(SELECT count(lifted_at) FROM suppression)"
    )
    with store.database.reading() as connection:
        head = chain.head(connection)
        goes_on = seen is None or head == seen or chain.extends(connection, seen)
        return head, goes_on, tuple(map(int, driver_rows(connection, query, ())[0]))


def _read_head(path: Path) -> Head | None:
    try:
        with path.open("rb") as file:
            size, digest, recorded_at, consent, rights = json.loads(file.read(_MOST_HEAD))
        return Head(int(size), bytes.fromhex(digest), int(recorded_at), int(consent), int(rights))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        hint = "verify the consent store, then remove the file"
        what = "the memory of where the consent store stood cannot be read"
        raise IntegrityError(what, code=Code.STORAGE, where=path, hint=hint) from None


def _write_head(path: Path, head: Head) -> None:
    said = [head.size, head.digest.hex(), head.recorded_at, head.consent, head.rights]
    write_private(path, json.dumps(said).encode())
