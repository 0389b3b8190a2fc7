"""A model file is whole, ours, of this version and of this model, or it is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import safetensors.torch
import torch

from fedgen.errors import ConfigError, IntegrityError
from fedgen.models import state
from fedgen.models.options import ModelOptions
from fedgen.models.registry import build
from fedgen.models.state import StateHeader, layout_digest, load, load_tensors, save, save_tensors
from fedgen.schema.layout import ImageLayout, TableLayout

if TYPE_CHECKING:
    from pathlib import Path

    from fedgen.models.base import GenerativeModel

TABLE = TableLayout((3, 2), (True, False), 1)
SMALL = ModelOptions(hidden=(4,), latent=2)


def model(seed: int = 1, layout: TableLayout = TABLE, options: ModelOptions = SMALL) -> GenerativeModel:
    return build("tabular-vae", layout, options, seed=seed)


def values(module: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


@pytest.mark.parametrize(
    "made",
    [
        model(),
        build("tabular-gan", TABLE),
        build("image-gan", ImageLayout(8, 8, 1, 16, 10)),
        build("image-vae", ImageLayout(8, 8, 1, 16)),
    ],
    ids=lambda made: made.name,
)
def test_load_is_the_inverse_of_save(tmp_path: Path, made: GenerativeModel) -> None:
    path = tmp_path / "model.safetensors"
    header = StateHeader.of(made, study_hash="ab" * 32, rounds=17)
    save(path, made, header)
    other = build(made.name, made.layout, made.options, seed=99)
    assert load(path, other, study_hash="ab" * 32) == header
    assert all(torch.equal(a, b) for a, b in zip(values(made), values(other), strict=True))
    assert [item.name for item in tmp_path.iterdir()] == ["model.safetensors"]


def test_header_strings_are_inverse() -> None:
    header = StateHeader(model="image-vae", layout="x", study_hash="", round=3)
    assert StateHeader.from_strings(header.to_strings()) == header


@pytest.mark.parametrize("round_", ["", "-1", "1.5", "x", "9" * 5000, "٣"])
def test_a_header_whose_round_is_no_number_is_refused(round_: str) -> None:
    with pytest.raises(IntegrityError):
        StateHeader.from_strings({"model": "m", "layout": "l", "study_hash": "", "round": round_})


def test_the_file_is_an_ordinary_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save(path, model(), StateHeader.of(model()))
    tensors = safetensors.torch.load_file(path)
    assert tensors.keys() == model().state_dict().keys()


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    for path in (one, two):
        save(path, model(), StateHeader.of(model()))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize(
    "other",
    [
        model(layout=TableLayout((2, 3), (True, False), 0)),
        model(layout=TableLayout((3, 2), (True, True), 1)),
        model(options=ModelOptions(hidden=(5,), latent=2)),
        model(options=ModelOptions(hidden=(4,), latent=2, beta=2.0)),
        build("tabular-gan", TABLE),
    ],
)
def test_weights_of_another_model_layout_or_size_are_refused_and_change_nothing(
    tmp_path: Path, other: GenerativeModel
) -> None:
    path = tmp_path / "m"
    save(path, model(), StateHeader.of(model()))
    before = values(other)
    with pytest.raises(ConfigError, match="another"):
        load(path, other)
    assert all(torch.equal(a, b) for a, b in zip(before, values(other), strict=True))


def test_weights_of_another_study_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m"
    save(path, model(), StateHeader.of(model(), study_hash="aa" * 32))
    with pytest.raises(ConfigError, match="study"):
        load(path, model(), study_hash="bb" * 32)


@pytest.mark.parametrize("damage", ["drop", "extra", "shape", "dtype"])
def test_tensors_that_do_not_fit_are_refused_and_change_nothing(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "m"
    tensors = dict(model().state_dict())
    name = next(iter(tensors))
    if damage == "drop":
        del tensors[name]
    elif damage == "extra":
        tensors["more"] = torch.zeros(1)
    elif damage == "shape":
        tensors[name] = tensors[name].reshape(-1)
    else:
        tensors[name] = tensors[name].double()
    save_tensors(path, tensors, StateHeader.of(model()).to_strings())
    target = model(seed=8)
    before = values(target)
    with pytest.raises(IntegrityError, match="fit"):
        load(path, target)
    assert all(torch.equal(a, b) for a, b in zip(before, values(target), strict=True))


def test_a_file_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m"
    monkeypatch.setattr(state, "FORMAT", 2)
    save_tensors(path, {"a": torch.zeros(1)}, {})
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="version 2"):
        load_tensors(path)


def test_a_missing_file_and_an_unwritable_place_are_configuration_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_tensors(tmp_path / "none")
    with pytest.raises(ConfigError, match="cannot be written"):
        save_tensors(tmp_path / "no" / "folder", {"a": torch.zeros(1)}, {})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 7,
        b"\xff" * 64,
        (2**20 + 1).to_bytes(8, "little") + b" " * (2**20 + 1),
        (2).to_bytes(8, "little") + b"{}",
        (4).to_bytes(8, "little") + b"\xff\xfe\xfd\xfc",
        (60_000).to_bytes(8, "little") + b"[" * 60_000,
    ],
    ids=["empty", "short", "huge-length", "over-limit", "no-metadata", "not-text", "nested"],
)
def test_foreign_bytes_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m"
    path.write_bytes(data)
    with pytest.raises(IntegrityError):
        load_tensors(path)


@pytest.mark.parametrize(
    "envelope",
    [
        "[]",
        "{}",
        '"x"',
        "not json",
        '{"format":1,"header":{"a":1},"digest":""}',
        '{"format":"1","header":{},"digest":""}',
    ],
)
def test_a_safetensors_file_without_our_header_is_refused(tmp_path: Path, envelope: str) -> None:
    path = tmp_path / "m"
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(2)}, {"fedgen": envelope}))
    with pytest.raises(IntegrityError):
        load_tensors(path)


def test_a_changed_header_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "m"
    save_tensors(path, {"a": torch.zeros(2)}, {"round": "1"})
    data = path.read_bytes()
    changed = data.replace(b'\\"round\\":\\"1\\"', b'\\"round\\":\\"2\\"')
    assert changed != data
    path.write_bytes(changed)
    with pytest.raises(IntegrityError, match="digest"):
        load_tensors(path)


def test_a_header_over_the_limit_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "m"
    with pytest.raises(ConfigError, match="limit"):
        save_tensors(path, {"a": torch.zeros(1)}, {"long": "x" * 2**20})
    assert not path.exists()


def test_a_tensor_of_another_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        save_tensors(tmp_path / "m", {"a": torch.zeros(1, dtype=torch.float16)}, {})


def test_a_failed_write_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m"
    save_tensors(path, {"a": torch.zeros(1)}, {"round": "1"})

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigError, match="no space left"):
        save_tensors(path, {"a": torch.ones(1)}, {"round": "2"})
    monkeypatch.undo()
    tensors, header = load_tensors(path)
    assert header == {"round": "1"}
    assert torch.equal(tensors["a"], torch.zeros(1))
    assert [item.name for item in tmp_path.iterdir()] == ["m"]


def test_digest_is_of_layout_and_options() -> None:
    assert layout_digest(model(seed=1)) == layout_digest(model(seed=2))
    assert layout_digest(model()) != layout_digest(model(options=ModelOptions(hidden=(4, 4), latent=2)))
    assert json.loads(json.dumps(StateHeader.of(model()).to_strings()))["model"] == "tabular-vae"
