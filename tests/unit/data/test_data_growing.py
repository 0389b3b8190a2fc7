import errno
import gc
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedgen.data.growing import GrowingArray, GrowingTexts


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def blocks(sizes: Any, width: Any = 3, dtype: Any = np.uint8) -> Any:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 250, (size, width)).astype(dtype) for size in sizes]


@pytest.mark.parametrize("spill_bytes", [0, 1, 3, 31, 10**9])
@pytest.mark.parametrize("sizes", [(1,), (5, 0, 7, 1), (0, 100, 1)])
def test_all_rows_come_back_in_order_wherever_they_are_kept(
    folder: Path, spill_bytes: Any, sizes: Any
) -> None:
    growing = GrowingArray(np.uint8, (3,), spill_bytes=spill_bytes)
    parts = blocks(sizes)
    for part in parts:
        growing.append(part)
    assert len(growing) == sum(sizes)
    result = growing.finish()
    assert (result == np.concatenate(parts)).all()
    assert result.dtype == np.uint8
    assert isinstance(result, np.memmap) == (sum(sizes) * 3 > spill_bytes)


def test_the_file_has_no_name_and_goes_with_the_array(folder: Path) -> None:
    growing = GrowingArray(np.uint8, (3,), spill_bytes=0)
    growing.append(*blocks([10]))
    assert list(folder.iterdir()) == []
    result = growing.finish()
    gc.collect()
    assert list(folder.iterdir()) == []
    assert result.shape == (10, 3)


@pytest.mark.parametrize("spill_bytes", [0, 10**9])
def test_the_result_cannot_be_written_to(folder: Path, spill_bytes: Any) -> None:
    growing = GrowingArray(np.uint8, (3,), spill_bytes=spill_bytes)
    growing.append(*blocks([4]))
    result = growing.finish()
    with pytest.raises(ValueError, match="read-only"):
        result[0, 0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        result.view().setflags(write=True)


def test_nothing_is_an_array_of_no_rows() -> None:
    assert GrowingArray(np.uint16, (4,)).finish().shape == (0, 4)
    assert GrowingArray(np.uint16, (4,), spill_bytes=0).finish().dtype == np.uint16
    assert GrowingTexts().finish().shape == (0,)


def test_finishing_begins_anew(folder: Path) -> None:
    growing = GrowingArray(np.uint8, (1,), spill_bytes=4)
    growing.append(np.ones((9, 1), np.uint8))
    first = growing.finish()
    growing.append(np.zeros((2, 1), np.uint8))
    assert growing.finish().tolist() == [[0], [0]]
    assert first.sum() == 9


def test_a_type_that_could_change_a_value_is_refused() -> None:
    growing = GrowingArray(np.uint8, (1,))
    with pytest.raises(TypeError):
        growing.append(np.zeros((1, 1), np.int64))
    wide = GrowingArray(np.uint16, (1,))
    wide.append(np.full((1, 1), 255, np.uint8))
    assert wide.finish().tolist() == [[255]]


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="rows must have the shape"):
        GrowingArray(np.uint8, (3,)).append(np.zeros((1, 4), np.uint8))


def test_memory_has_little_to_spare() -> None:
    growing = GrowingArray(np.uint8, (1,))
    for _ in range(1000):
        growing.append(np.zeros((1000, 1), np.uint8))
        assert growing._held.nbytes <= 9 / 8 * max(len(growing), 1000)


def test_a_full_disk_says_where_and_what_to_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, _data: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_options: Full())
    growing = GrowingArray(np.uint8, (1,), spill_bytes=0)
    with pytest.raises(OSError, match="TMPDIR names another folder") as caught:
        growing.append(np.zeros((1, 1), np.uint8))
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(folder)


@pytest.mark.parametrize("spill_bytes", [0, 40, 10**9])
def test_texts_of_any_width_are_kept_byte_for_byte(folder: Path, spill_bytes: Any) -> None:
    parts = [[b"a", b"bb"], [b"x" * 9], [], [b"y" * 128, b"\xff\xfe"], [b"c"]]
    growing = GrowingTexts(spill_bytes=spill_bytes)
    for part in parts:
        growing.append(np.array(part, dtype="S") if part else np.empty(0, "S1"))
    result = growing.finish()
    assert result.tolist() == [value for part in parts for value in part]
    assert result.dtype == "S128"
