"""The coordinator's own log: a round is written down before it is asked, and its model before the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from support.federation import small_study
from support.ledgers import entries, reserved, settled

from fedgen.api.desk import LoggedProgress, asked_rounds, open_desk
from fedgen.api.ledgers import verify_ledger
from fedgen.config.plan import plan_of
from fedgen.coordinator.progress import Progress
from fedgen.coordinator.secure_store import SetupFile
from fedgen.crypto.digest import sha256_hex
from fedgen.errors import IntegrityError
from fedgen.ledger.checkpoint import Checkpoint
from fedgen.ledger.entries import Closed, Settled
from fedgen.runs.folder import RunFolder

if TYPE_CHECKING:
    from pathlib import Path

STUDY = small_study()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder(tmp_path)
    made.checkpoints.mkdir()
    return made


def _store(folder: RunFolder) -> LoggedProgress:
    return LoggedProgress(folder, {"study_hash": STUDY.study_hash}, STUDY, plan_of(STUDY), open_desk(folder))


def test_the_desk_is_the_same_after_a_restart(folder: RunFolder) -> None:
    first, again = open_desk(folder), open_desk(folder)
    assert again.run == first.run
    assert again.keys.signing.public == first.keys.signing.public
    assert again.keys.sealing.public == first.keys.sealing.public
    modes = {path.name: path.stat().st_mode & 0o777 for path in (folder.root / "coordinator").iterdir()}
    assert modes["signing.key"] == modes["sealing.key"] == 0o600


def test_a_start_that_was_killed_before_it_was_whole_is_made_anew(folder: RunFolder) -> None:
    first = open_desk(folder)
    (folder.root / "coordinator" / "run").unlink()
    SetupFile(folder.setups, first.run).next_setup()
    again = open_desk(folder)
    assert again.run != first.run
    assert SetupFile(folder.setups, again.run).next_setup() == 1, (
        "what was used belongs to the run that is gone"
    )
    with _store(folder) as store:
        assert store.next_attempt(1) == 1


def test_a_round_is_in_the_log_before_anybody_is_asked(folder: RunFolder) -> None:
    with _store(folder) as store:
        assert store.next_attempt(1) == 1
        assert reserved(folder.ledger) == [(1, 1)]
        assert settled(folder.ledger) == []


def test_a_model_is_settled_with_its_digest(folder: RunFolder) -> None:
    weights = torch.arange(4, dtype=torch.float32)
    with _store(folder) as store:
        store.next_attempt(1)
        store.save(Progress(round=1, weights=weights))
        store.close_study("completed", 1)
    (entry,) = (entry for entry in entries(folder.ledger) if isinstance(entry, Settled))
    assert entry.digest == sha256_hex(weights.numpy().astype("<f4").tobytes())
    assert isinstance(entries(folder.ledger)[-1], Closed)
    (checked,) = verify_ledger(folder.ledger)
    assert (checked.ok, checked.checkpoint) == (True, folder.root / "ledger.db.checkpoint")
    assert Checkpoint.read(folder.root / "ledger.db.checkpoint").size == len(entries(folder.ledger))


def test_a_crashed_attempt_stays_in_the_log_and_is_counted(folder: RunFolder) -> None:
    assert asked_rounds(folder) == 0
    with _store(folder) as store:
        store.next_attempt(1)
        assert store.asked == 1
    with _store(folder) as store:
        assert store.asked == 1
        assert store.next_attempt(1) == 2
        assert store.asked == asked_rounds(folder) == 2
    assert reserved(folder.ledger) == [(1, 1), (1, 2)]


def test_a_log_of_another_key_is_refused(folder: RunFolder) -> None:
    with _store(folder):
        pass
    (folder.root / "coordinator" / "signing.key").unlink()
    (folder.root / "coordinator" / "sealing.key").unlink()
    ledger = folder.ledger.read_bytes()
    (folder.root / "coordinator" / "run").unlink()
    open_desk(folder)  # begins anew, with a log of its own
    assert not folder.ledger.exists()
    folder.ledger.write_bytes(ledger)
    with pytest.raises(IntegrityError, match="another key"):
        _store(folder)


def test_a_start_made_anew_is_not_held_against_the_checkpoint_of_the_old_one(folder: RunFolder) -> None:
    with _store(folder) as store:
        store.close_study("interrupted", 0)
    (folder.root / "coordinator" / "run").unlink()
    with _store(folder):
        pass
    (checked,) = verify_ledger(folder.ledger)
    assert (checked.ok, checked.checkpoint) == (True, None)
