"""Durable progress: the newest whole checkpoint of this very study, and attempts that never repeat."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from fedgen.coordinator.progress import Progress, ProgressStore
from fedgen.errors import ConfigError, IntegrityError
from fedgen.models.state import save_tensors
from fedgen.runs.folder import RunFolder

if TYPE_CHECKING:
    from pathlib import Path

HEADER = {"study_hash": "11" * 32, "model": "tabular-vae"}


def _store(root: Path, **header: str) -> ProgressStore:
    folder = RunFolder(root)
    folder.checkpoints.mkdir(parents=True, exist_ok=True)
    return ProgressStore(folder, {**HEADER, **header})


def _progress(number: int, *, average: bool = True) -> Progress:
    base = torch.arange(5, dtype=torch.float32) + number
    return Progress(
        round=number,
        weights=base,
        average=base / 2 if average else None,
        optimizer={"private.step": torch.tensor([number]), "private.first": base * 3},
    )


def _same(left: Progress | None, right: Progress) -> bool:
    assert left is not None
    assert left.optimizer.keys() == right.optimizer.keys()
    return (
        left.round == right.round
        and torch.equal(left.weights, right.weights)
        and (left.average is None) == (right.average is None)
        and (left.average is None or torch.equal(left.average, right.average))
        and all(torch.equal(left.optimizer[name], value) for name, value in right.optimizer.items())
    )


@pytest.mark.parametrize("average", [True, False])
def test_what_is_saved_is_what_is_restored(tmp_path: Path, average: bool) -> None:  # noqa: FBT001 - a row
    store = _store(tmp_path)
    store.save(_progress(3, average=average))
    assert _same(_store(tmp_path).latest(), _progress(3, average=average))


def test_the_average_is_what_is_released_where_there_is_one() -> None:
    assert torch.equal(_progress(2).released, _progress(2).weights / 2)
    assert torch.equal(_progress(2, average=False).released, _progress(2).weights)


def test_before_the_first_round_there_is_nothing(tmp_path: Path) -> None:
    assert _store(tmp_path).latest() is None


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    store = _store(tmp_path)
    for number in range(1, 6):
        store.save(_progress(number))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "round-000004.safetensors",
        "round-000005.safetensors",
    ]
    assert _same(store.latest(), _progress(5))


TEARS = {
    "nothing in it": lambda _data: b"",
    "cut in the header": lambda data: data[:40],
    "cut in the tensors": lambda data: data[:-3],
    "one bit turned": lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
    "something else": lambda _data: b"{" * 500,
}


@pytest.mark.parametrize("tear", list(TEARS))
def test_a_torn_newest_checkpoint_falls_back_to_the_one_before(tmp_path: Path, tear: str) -> None:
    store = _store(tmp_path)
    for number in (1, 2):
        store.save(_progress(number))
    newest = store._folder.checkpoint(2)
    newest.write_bytes(TEARS[tear](newest.read_bytes()))
    assert _same(_store(tmp_path).latest(), _progress(1))


def test_after_a_fall_back_the_torn_round_is_saved_anew(tmp_path: Path) -> None:
    store = _store(tmp_path)
    for number in (1, 2):
        store.save(_progress(number))
    store._folder.checkpoint(2).write_bytes(b"torn")
    again = _store(tmp_path)
    assert _same(again.latest(), _progress(1))
    again.save(_progress(2))
    assert _same(again.latest(), _progress(2))


def test_with_every_checkpoint_torn_nothing_is_made_up(tmp_path: Path) -> None:
    store = _store(tmp_path)
    for number in (1, 2):
        store.save(_progress(number))
        store._folder.checkpoint(number).write_bytes(b"torn")
    with pytest.raises(IntegrityError):
        store.latest()


@pytest.mark.parametrize(("name", "value"), [("study_hash", "99" * 32), ("model", "tabular-gan")])
def test_a_foreign_checkpoint_is_refused_and_not_passed_over(tmp_path: Path, name: str, value: str) -> None:
    _store(tmp_path).save(_progress(1))
    _store(tmp_path, **{name: value}).save(_progress(2))
    with pytest.raises(IntegrityError, match=f"a checkpoint of another {name.replace('_', ' ')}") as error:
        _store(tmp_path).latest()
    assert "--out" in (error.value.hint or "")


def test_a_foreign_checkpoint_behind_a_torn_one_is_refused_too(tmp_path: Path) -> None:
    _store(tmp_path, model="tabular-gan").save(_progress(1))
    store = _store(tmp_path)
    store.save(_progress(2))
    store._folder.checkpoint(2).write_bytes(b"torn")
    with pytest.raises(IntegrityError, match="another model"):
        store.latest()


def test_files_that_are_no_checkpoints_are_not_looked_at(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.save(_progress(1))
    for name in ("round-9.safetensors", ".round-000009.safetensors.ab.writing", "round-000009.pt", "best"):
        (tmp_path / "checkpoints" / name).write_bytes(b"1")
    assert _same(store.latest(), _progress(1))


def test_a_disk_that_is_full_leaves_the_last_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = _store(tmp_path)
    store.save(_progress(1))

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigError):
        store.save(_progress(2))
    monkeypatch.undo()
    assert _same(_store(tmp_path).latest(), _progress(1))
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


def test_a_checkpoint_without_a_round_of_its_own_is_not_believed(tmp_path: Path) -> None:
    store = _store(tmp_path)
    save_tensors(store._folder.checkpoint(1), {"weights": torch.ones(2)}, HEADER)
    with pytest.raises(IntegrityError, match="another round"):
        store.latest()


def test_an_old_checkpoint_under_a_new_name_is_not_believed(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.save(_progress(1))
    store._folder.checkpoint(9).write_bytes(store._folder.checkpoint(1).read_bytes())
    with pytest.raises(IntegrityError, match="another round"):
        store.latest()


# -- attempts ---------------------------------------------------------------------------------------


def test_attempts_rise_for_each_round_on_its_own(tmp_path: Path) -> None:
    store = _store(tmp_path)
    assert [store.next_attempt(number) for number in (1, 1, 2, 1, 2)] == [1, 2, 1, 3, 2]


def test_attempts_outlive_the_process(tmp_path: Path) -> None:
    assert _store(tmp_path).next_attempt(4) == 1
    assert _store(tmp_path).next_attempt(4) == 2


def test_an_attempt_is_on_the_disk_before_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    import os

    real = os.fsync
    monkeypatch.setattr("os.fsync", lambda handle: (synced.append(handle), real(handle))[1])
    _store(tmp_path).next_attempt(1)
    assert synced


def test_a_torn_line_of_attempts_costs_no_number_twice(tmp_path: Path) -> None:
    store = _store(tmp_path)
    first = store.next_attempt(7)
    with (tmp_path / "attempts.jsonl").open("ab") as file:
        file.write(b"7")  # a crash in the middle of the second
    assert store.next_attempt(7) == first + 1
