"""What a site's owner does: look at a study, say yes or no, take it back, see where the site stands, leave, wipe."""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedgen.api.owner_words import lines_of
from fedgen.api.serving import DATASET, approval_book, ledger_place, served_by, socket_of
from fedgen.config.plan import plan_of
from fedgen.config.resolve import ResolvedStudy, read_resolved
from fedgen.enrolment.documents import shown
from fedgen.errors import ConfigError, FedgenError, Refused, UsageError
from fedgen.ledger.history import History, history_of
from fedgen.privacy.accountant import epsilon
from fedgen.privacy.events import merge
from fedgen.privacy.statement import at_most, ceilings_in_words
from fedgen.privacy.units import Relation

if TYPE_CHECKING:
    from fedgen.config.site import SiteSpec
    from fedgen.enrolment.site_home import SiteHome
    from fedgen.privacy.events import Counts
    from fedgen.privacy.plan import Plan
    from fedgen.site.approval_book import Approval, ApprovalBook

_NO_STUDY: Final = "0" * 64
_SHORTEST: Final = 4
_UNSEEN: Final = 12  # digits of a hash that nobody can search for
_DIGITS: Final = re.compile(r"[0-9a-fA-F]{4,64}")


@dataclass(frozen=True, slots=True)
class Looked:
    """A study as its owner sees it before deciding.

    Attributes:
        study: It.
        epsilon: The most it may cost, over all its rounds.
        delta: At the site's δ where it has one, else the study's.
        before: What all studies have cost the data so far.
        after: The same with this study, all its rounds counted anew.
        lines: Everything in plain words: title and text.
        refused: Why the site's own rules would refuse it anyway, or None.
        decision: What was decided about it before, or None.
        coordinator: Public key of the coordinator that updates would go to, hex; None before the site joined.
    """

    study: ResolvedStudy
    epsilon: float
    delta: float
    before: float
    after: float
    lines: tuple[tuple[str, str], ...]
    refused: str | None
    decision: Approval | None
    coordinator: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "study": self.study.study.study,
            "study_hash": self.study.study_hash,
            "epsilon": self.epsilon,
            "delta": self.delta,
            "epsilon_before": self.before,
            "epsilon_after": self.after,
            "refused": self.refused,
            "decision": None if self.decision is None else self.decision.decision,
            "lines": [list(line) for line in self.lines],
        }


def find_study(home: SiteHome, named: str, *, unseen: bool = False) -> ResolvedStudy:
    """Return the study that is meant: one that waits, by the first digits of its hash, or a resolved study's file.

    Args:
        home: The site's.
        named: The digits, or the file.
        unseen: Whether nobody will look at it before it is approved. It takes more digits then: whoever may send
            studies can look for one with the same beginning.

    Raises:
        ConfigError: No such study waits, or the file is none.
        UsageError: The digits fit several, or are too few.
    """
    path = Path(named)
    book = approval_book(home, home.spec().name)
    # Digits mean what waits: a file of that name in the working folder may be anybody's.
    digits = bool(_DIGITS.fullmatch(named)) and any(it.startswith(named.lower()) for it in book.waiting())
    if not digits and (path.suffix in {".yaml", ".yml"} or path.is_file()):
        return read_resolved(path)
    fitting = [it for it in book.waiting() if len(named) >= _SHORTEST and it.startswith(named.lower())]
    if len(fitting) > 1:
        raise UsageError(f"{named} fits {len(fitting)} studies", hint="give more digits of the hash")
    found = book.filed(fitting[0]) if fitting else None
    if found is None:
        waiting = ", ".join(it[:8] for it in book.waiting()) or "none"
        for it in book.decisions():
            if len(named) >= _SHORTEST and it.study_hash.startswith(named.lower()):
                hint = f"waiting: {waiting}; to look again or change a no: name a run's study.yaml"
                raise ConfigError(f"{named} was {it.decision} on {it.time}", where=home.approvals, hint=hint)
        raise ConfigError(
            f"no study that waits begins with {named!r}",
            where=home.pending,
            hint=f"waiting: {waiting}; or name a run's study.yaml",
        )
    if unseen and len(named) < _UNSEEN:
        raise UsageError(
            f"{len(named)} digits of a hash are too few to say yes without looking",
            hint=f"give {_UNSEEN} or more, or leave out --yes",
        )
    return found


def look(home: SiteHome, study: ResolvedStudy) -> Looked:
    """Return what a study would do at this site, in plain words; decides nothing and changes nothing.

    Raises:
        ConfigError: The site's file is wrong, or the study is impossible.
        IntegrityError: The ledger cannot be read.
    """
    spec = home.spec()
    plan = plan_of(study)
    delta = min(spec.ceilings.delta, plan.delta)
    spent = history(home, spec)
    before = _cost(spent.spent.data, plan.relation, delta)
    event, steps = plan.event_per_round()
    own: Counts = ((event, steps * plan.rounds),)
    after = _cost(merge((*spent.spent.data, *own)), plan.relation, delta)
    cost = plan.epsilon_of(plan.rounds)
    decision, accepted = None, None
    with suppress(FedgenError):
        accepted = home.accepted()
    with suppress(FedgenError):
        decision = approval_book(home, spec.name).decision(study.study_hash)
    return Looked(
        study=study,
        epsilon=cost,
        delta=delta,
        before=before,
        after=after,
        lines=tuple(lines_of(accepted, spec, study, plan, (cost, before, after, delta))),
        refused=_refused(home, spec, study, plan, after),
        decision=decision,
        coordinator=None if accepted is None else accepted.coordinator,
    )


def approve(home: SiteHome, looked: Looked) -> Approval:
    """Write down the owner's yes; it holds from the next message on, for the coordinator that was shown.

    Raises:
        Refused: The site's own rules would refuse the study: mend these first.
        ConfigError: The folder cannot be written.
    """
    if looked.refused is not None:
        raise Refused(f"this site would refuse the study: {looked.refused}", where=home.config)
    if looked.coordinator is None:
        what = "the site has joined no coordinator, so nobody can say where updates would go"
        raise Refused(what, where=home.invitation, hint="fedgen site join INVITATION")
    plan = plan_of(looked.study)
    book = approval_book(home, home.spec().name)
    return book.decide(
        looked.study.study_hash,
        "approved",
        home.identity(),
        epsilon=looked.epsilon,
        delta=plan.delta,
        coordinator=looked.coordinator,
    )


def revoke(home: SiteHome, named: str) -> Approval:
    """Take an approval back, or say no to a study that waits; it holds from the next message on.

    Args:
        home: The site's.
        named: The first digits of the study's hash.

    Raises:
        ConfigError: No such study was approved or waits.
        UsageError: The digits fit several.
    """
    book = approval_book(home, home.spec().name)
    known = {it.study_hash: it for it in book.decisions()}
    every = sorted({*known, *book.waiting()})
    fitting = [it for it in every if len(named) >= _SHORTEST and it.startswith(named.lower())]
    if len(fitting) > 1:
        raise UsageError(f"{named} fits {len(fitting)} studies", hint="give more digits of the hash")
    if not fitting:
        raise ConfigError(f"no study that was approved or waits begins with {named!r}", where=home.approvals)
    return take_back(home, book, fitting[0], known.get(fitting[0]))


def take_back(home: SiteHome, book: ApprovalBook, study_hash: str, known: Approval | None) -> Approval:
    """Write down that a study may not run; ``known`` is what was decided before."""
    cost, delta = (0.0, 0.5) if known is None else (known.epsilon, known.delta)
    return book.decide(study_hash, "revoked", home.identity(), epsilon=cost, delta=delta)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a site stands.

    Attributes:
        site: Its name.
        home: Its folder.
        daemon: ``running``, ``starting`` or ``stopped``.
        process: Of the daemon, or None.
        socket: Where it listens.
        coordinator: Name, address and fingerprint of the coordinator; None before the site joined.
        expires: When its invitation ends, or None.
        trouble: Why the site cannot serve as its home is now, or None.
        spent: What all studies have cost the data, in words.
        ceilings: What may be spent, in words.
        studies: How many studies have spent anything.
        approved: Hashes of the studies that may run.
        revoked: Hashes of those that may not any more.
        waiting: Hash and name of those that wait for the owner.
    """

    site: str
    home: str
    daemon: str
    process: int | None
    socket: str
    coordinator: dict[str, str] | None
    expires: str | None
    trouble: str | None
    spent: str
    ceilings: str
    studies: int
    approved: tuple[str, ...]
    revoked: tuple[str, ...]
    waiting: tuple[tuple[str, str], ...]

    @property
    def next_step(self) -> str | None:
        """What its operator would do now, or None where the site only waits for the coordinator."""
        home = shlex.quote(self.home)
        if self.coordinator is None:
            return f"fedgen site join INVITATION --home {home}"
        if self.trouble is not None:
            return "mend the trouble, or join with a newer invitation"
        if self.waiting:
            return f"fedgen site approve {self.waiting[0][0][:8]} --home {home}"
        if self.daemon == "stopped":
            return f"fedgen site serve {home}"
        return None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def standing(home: SiteHome) -> Standing:
    """Return where a site stands; reads only.

    Raises:
        ConfigError: The home or the site's file is missing, open to others or wrong.
        IntegrityError: The ledger cannot be read.
    """
    spec = home.spec()
    if not home.identity_key.exists():
        hint = f"begin it again, on the same ledger: fedgen site init {shlex.quote(str(home.root))} --name {spec.name}"
        raise ConfigError(
            "the site's keys are gone: it was wiped, or never finished", where=home.keys, hint=hint
        )
    book = approval_book(home, spec.name)
    decisions = book.decisions()
    accepted, trouble = None, None
    try:
        accepted = home.accepted()
        home.coordinator()
    except FedgenError as error:
        trouble = str(error)
    process = served_by(home)
    spent = history(home, spec)
    delta = spec.ceilings.delta
    ceilings = spec.ceilings
    return Standing(
        site=spec.name,
        home=str(home.root),
        daemon="stopped" if process is None else "running" if process else "starting",
        process=process or None,
        socket=str(socket_of(spec, home)),
        coordinator=None
        if accepted is None
        else {
            "name": accepted.name,
            "address": accepted.address,
            "fingerprint": shown(accepted.coordinator),
        },
        expires=None if accepted is None else accepted.expires,
        trouble=trouble,
        spent=f"{at_most(_cost(spent.spent.data, Relation.ADD_OR_REMOVE, delta))} in all, at δ = {delta:g}",
        ceilings=ceilings_in_words(
            ceilings.epsilon_per_study, ceilings.epsilon_per_year, ceilings.epsilon_life, delta
        ),
        studies=spent.studies,
        approved=tuple(it.study_hash for it in decisions if it.decision == "approved"),
        revoked=tuple(it.study_hash for it in decisions if it.decision == "revoked"),
        waiting=tuple((it, _name_of(book, it)) for it in book.waiting()),
    )


def history(home: SiteHome, spec: SiteSpec) -> History:
    """Return what was spent on the site's data by all studies; nothing before its daemon was first started.

    Raises:
        IntegrityError: The ledger or the memory of the data is damaged.
    """
    from fedgen.api.site_data import known_dataset

    dataset, place = known_dataset(home.state / DATASET), ledger_place(home, spec)
    if dataset is None:
        return History()
    return history_of(place, dataset, _NO_STUDY, now=datetime.now(UTC))  # type: ignore[arg-type]  # a server, too


def _refused(home: SiteHome, spec: SiteSpec, study: ResolvedStudy, plan: Plan, after: float) -> str | None:
    """Return why the site would refuse, as far as that can be said without its data."""
    from fedgen.api.serving import rules_of, schema_of
    from fedgen.site.admit import check_study

    try:
        check_study(study, plan, rules_of(spec, schema_of(home, spec).digest()))
    except FedgenError as error:
        return error.what
    if after > spec.ceilings.epsilon_life:
        return "with what was spent before it would pass the ceiling for the life of the data"
    return None


def _name_of(book: ApprovalBook, study_hash: str) -> str:
    try:
        found = book.filed(study_hash)
    except FedgenError:
        return "cannot be read"
    return "gone" if found is None else found.study.study


def _cost(counts: Counts, relation: Relation, delta: float) -> float:
    return epsilon(counts, delta, relation=relation).epsilon if counts else 0.0
