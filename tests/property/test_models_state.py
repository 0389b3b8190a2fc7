"""Saving and loading are inverse for any tensors, and no damage goes unnoticed."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedgen.errors import FedgenError
from fedgen.models.state import load_tensors, save_tensors

names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12).filter(
    lambda name: name != "__metadata__"
)
shapes = st.lists(st.integers(0, 4), max_size=3)
dtypes = st.sampled_from([torch.float32, torch.float64, torch.int64])
headers = st.dictionaries(names, st.text(st.characters(exclude_categories=("Cs",)), max_size=20), max_size=4)


@st.composite
def tensors(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    made = {}
    for name in draw(st.sets(names, max_size=4)):
        shape, dtype = draw(shapes), draw(dtypes)
        size = int(torch.tensor(shape).prod()) if shape else 1
        raw = draw(st.binary(min_size=8 * size, max_size=8 * size))
        words = (
            torch.frombuffer(bytearray(raw), dtype=torch.int64) if size else torch.zeros(0, dtype=torch.int64)
        )
        values = words if dtype == torch.int64 else words.view(dtype)[:size]
        made[name] = values.reshape(shape).clone()
    return made


def same(one: torch.Tensor, two: torch.Tensor) -> bool:
    """Equal in shape, type and every bit, NaN payloads included."""
    return (
        one.shape == two.shape and one.dtype == two.dtype and one.numpy().tobytes() == two.numpy().tobytes()
    )


@settings(deadline=None, max_examples=60)
@given(tensors=tensors(), header=headers)
def test_load_is_the_inverse_of_save(tensors: dict[str, torch.Tensor], header: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m"
        save_tensors(path, tensors, header)
        loaded, read = load_tensors(path)
    assert read == header
    assert loaded.keys() == tensors.keys()
    assert all(same(loaded[name], tensors[name]) for name in tensors)


SAVED = {"weights": torch.arange(6, dtype=torch.float32).reshape(2, 3), "step": torch.tensor(4)}
HEADER = {"model": "tabular-vae", "round": "12"}


def saved(folder: str) -> tuple[Path, bytes]:
    path = Path(folder) / "m"
    save_tensors(path, SAVED, HEADER)
    return path, path.read_bytes()


def refused_or_unchanged(path: Path) -> bool:
    """Whether reading raises one of our errors, or gives exactly what was saved (a changed blank, say)."""
    try:
        loaded, header = load_tensors(path)
    except FedgenError:
        return True
    return (
        header == HEADER and loaded.keys() == SAVED.keys() and all(same(loaded[k], SAVED[k]) for k in SAVED)
    )


@settings(deadline=None, max_examples=200)
@given(place=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_one_changed_byte_is_noticed(place: int, flip: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, data = saved(folder)
        broken = bytearray(data)
        broken[place % len(data)] ^= flip
        path.write_bytes(broken)
        assert refused_or_unchanged(path)


@settings(deadline=None, max_examples=60)
@given(keep=st.integers(0, 10_000), more=st.binary(max_size=16))
def test_a_truncated_or_longer_file_is_refused(keep: int, more: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, data = saved(folder)
        path.write_bytes(data[: keep % len(data)] + more)
        if path.read_bytes() == data:
            return
        try:
            load_tensors(path)
        except FedgenError:
            return
        raise AssertionError("a damaged file was read")


@settings(deadline=None, max_examples=100)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_refused_with_one_of_our_errors(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m"
        path.write_bytes(data)
        try:
            load_tensors(path)
        except FedgenError:
            return
        raise AssertionError("foreign bytes were read")
