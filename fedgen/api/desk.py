"""The coordinator's own things in a run folder: its keys, the identity of the run, and its log."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self

from fedgen.coordinator.coordinator import new_run_id
from fedgen.coordinator.post import Keys
from fedgen.coordinator.progress import ProgressStore
from fedgen.crypto.digest import sha256_hex
from fedgen.crypto.keys import SealingKey, SigningKey
from fedgen.ledger.checkpoint import beside
from fedgen.ledger.entries import Admitted, Closed
from fedgen.ledger.store import Ledger
from fedgen.policy.calendar import microseconds_of, moment_of
from fedgen.policy.retention import retain_until
from fedgen.runs.atomic import storage, write_text
from fedgen.runs.lines import read_lines

if TYPE_CHECKING:
    from fedgen.config.resolve import ResolvedStudy
    from fedgen.coordinator.progress import Progress
    from fedgen.ledger.store import Receipt
    from fedgen.privacy.plan import Plan
    from fedgen.runs.folder import RunFolder

ORIGIN = "fedgen/simulated/coordinator"
COORDINATOR_SEED_SALT: Final = 7_919  # apart from every site's noise, where a study is seeded
_KEPT_FOR_ROLLBACK = 10


@dataclass(frozen=True, slots=True)
class Desk:
    """What the coordinator of a run keeps in its folder between restarts."""

    keys: Keys
    run: str


def open_desk(folder: RunFolder) -> Desk:
    """Return the coordinator's keys and the identity of the run, made on the first start."""
    home = folder.root / "coordinator"
    signing, sealing, identity = home / "signing.key", home / "sealing.key", home / "run"
    if not identity.exists():  # written last: a start that was killed before it is made anew
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (signing, sealing, folder.setups, folder.ledger, beside(folder.ledger)):
            path.unlink(missing_ok=True)
        SigningKey.generate().save(signing)
        SealingKey.generate().save(sealing)
        write_text(identity, new_run_id() + "\n")
    keys = Keys(signing=SigningKey.load(signing), sealing=SealingKey.load(sealing))
    return Desk(keys=keys, run=identity.read_text(encoding="utf-8").strip())


def rollback_step(study: ResolvedStudy) -> int:
    """Return every how many rounds a checkpoint is kept for a rollback: about ten in a run; none without a consent log.

    Without one nobody can be erased from a run, and a checkpoint of a large model is a large file.
    """
    spec = study.study
    return 0 if spec.policy.consent is None else max(1, math.ceil(spec.training.rounds / _KEPT_FOR_ROLLBACK))


def asked_rounds(folder: RunFolder) -> int:
    """Return how often a round was asked in this folder, every attempt counted; a site is charged no oftener."""
    path = folder.root / "attempts.jsonl"
    with storage(folder.root):
        return len(read_lines(path)) if path.is_file() else 0


class LoggedProgress(ProgressStore):
    """Progress of a coordinator that writes down each round before it asks, and each model before the next.

    The log is ``ledger.db`` of the run folder. A round is reserved there before its first message leaves and
    settled with the digest of the model it made; so it says what the coordinator asked for, whether or not
    a round ever finished. What was charged to a site's rows stands in the site's own ledger.

    Args:
        folder: The run folder, locked by this process.
        header: See :class:`fedgen.coordinator.progress.ProgressStore`.
        study: The resolved study.
        plan: Its privacy plan.
        desk: Keys and identity of the run.
    """

    def __init__(
        self, folder: RunFolder, header: dict[str, str], study: ResolvedStudy, plan: Plan, desk: Desk
    ) -> None:
        super().__init__(folder, header, every=rollback_step(study))
        self._study, self._plan, self._run = study.study_hash, plan, desk.run
        self._ledger = Ledger.open(folder.ledger, origin=ORIGIN, signing_key=desk.keys.signing, durable=False)
        self._ledger.append(Admitted(study_hash=self._study, run=self._run, dataset=f"study/{self._study}"))
        self._receipt: Receipt | None = None
        self.asked = asked_rounds(folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ledger.close()

    def next_attempt(self, number: int) -> int:
        """Return the attempt for a round, on the disk and in the log."""
        attempt = super().next_attempt(number)
        self.asked += 1
        event, count = self._plan.event_per_round()
        self._receipt = self._ledger.reserve(
            dataset=f"study/{self._study}",
            study_hash=self._study,
            run=self._run,
            round=number,
            attempt=attempt,
            event=event,
            count=count,
            unit=self._plan.unit.value,
            check=lambda _spent: None,  # whether it may be spent is for the sites to say, not for who asks
        )
        return attempt

    def save(self, progress: Progress) -> None:
        """Write a checkpoint, then its digest into the log."""
        super().save(progress)
        if self._receipt is not None:
            weights = progress.weights.numpy().astype("<f4", copy=False)
            self._ledger.settle(self._receipt, sha256_hex(weights.tobytes()))
            self._receipt = None

    def _born(self) -> dict[str, str]:
        """Return when a checkpoint was made, in which run, and until when it may stay."""
        now = datetime.now(UTC)
        until = moment_of(retain_until(microseconds_of(now)))
        return {"run": self._run, "created_at": now.isoformat(), "retain_until": until.isoformat()}

    def close_study(self, outcome: str, rounds: int) -> None:
        """Write down how this process's part of the run ended, and keep a checkpoint beside the log."""
        self._ledger.append(Closed(study_hash=self._study, run=self._run, outcome=outcome, rounds=rounds))
        self._ledger.keep_checkpoint()
