"""The key stream: what it hands out, in which memory, and what it does after a fork."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedgen.crypto import stream
from fedgen.crypto.derive import hkdf
from fedgen.crypto.stream import KeyStream
from fedgen.errors import FedgenError


def test_it_is_aes_256_in_counter_mode() -> None:
    key = bytes(range(32))
    counters = b"".join(index.to_bytes(16, "big") for index in range(20))
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - one block at a time is the definition
    assert KeyStream(key).bytes(320) == block.update(counters)


def test_the_stream_does_not_depend_on_how_it_is_cut() -> None:
    whole = KeyStream.insecure(7).bytes(1_000_003)
    cut = KeyStream.insecure(7)
    array = np.empty(101, dtype=np.uint64)
    cut.fill(array)
    parts = [array.tobytes(), cut.bytes(0), cut.bytes(5), bytes(cut.view(600_001))]
    parts.append(cut.bytes(1_000_003 - sum(map(len, parts))))
    assert b"".join(parts) == whole


@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_every_byte_around_the_internal_step_is_written(extra: int) -> None:
    size = len(stream._ZEROS) + extra
    assert KeyStream.insecure(1).bytes(size) == KeyStream.insecure(1).bytes(size + 99)[:size]
    guarded = bytearray(size + 32)
    KeyStream.insecure(1).fill(memoryview(guarded)[16:-16])
    assert guarded[:16] == guarded[-16:] == bytes(16)
    assert guarded[16:-16] == KeyStream.insecure(1).bytes(size)


def test_a_seed_repeats_and_a_label_separates() -> None:
    assert KeyStream.insecure(3).bytes(64) == KeyStream.insecure(3).bytes(64)
    streams = {
        KeyStream.insecure(s, label=n).bytes(32) for s in (0, 1, 2**64, 2**256 - 1) for n in ("", "a", "b")
    }
    assert len(streams) == 12
    assert KeyStream.insecure(3, label="a").bytes(9) == KeyStream(
        hkdf((3).to_bytes(32, "big"), purpose="stream/insecure", context=b"a")
    ).bytes(9)


@pytest.mark.parametrize("seed", [-1, 2**256])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="seed must be"):
        KeyStream.insecure(seed)


def test_secure_says_where_the_key_came_from() -> None:
    assert KeyStream.from_os().secure
    assert not KeyStream.insecure(1).secure
    assert not KeyStream(bytes(32)).secure
    with pytest.raises(AttributeError):
        KeyStream.insecure(1).secure = True  # type: ignore[misc]


def test_two_secure_streams_differ() -> None:
    assert KeyStream.from_os().bytes(32) != KeyStream.from_os().bytes(32)


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="key"):
        KeyStream(bytes(31))


def test_view_reuses_its_memory() -> None:
    source = KeyStream.insecure(1)
    first = source.view(4096)
    before = bytes(first)
    second = source.view(100)
    assert np.shares_memory(np.frombuffer(first, np.uint8), np.frombuffer(second, np.uint8))
    assert bytes(first[:100]) != before[:100]
    assert bytes(first[100:]) == before[100:]
    assert not second.readonly


def test_a_view_outlives_growth_and_stream() -> None:
    source = KeyStream.insecure(1)
    small = source.view(16)
    kept = bytes(small)
    source.view(10**6)
    del source
    assert bytes(small) == kept


def test_fill_takes_any_contiguous_array() -> None:
    for array in (np.zeros(7, np.uint32), np.zeros((3, 5), np.int64), np.zeros((0, 3), np.uint8)):
        KeyStream.insecure(2).fill(array)
        assert array.tobytes() == KeyStream.insecure(2).bytes(array.nbytes)


@pytest.mark.parametrize("buffer", [b"12345678", np.zeros(8, np.uint8)[::2], memoryview(bytearray(9))[::-1]])
def test_fill_refuses_what_it_cannot_write_whole(buffer: memoryview) -> None:
    with pytest.raises(TypeError, match="writable, C-contiguous"):
        KeyStream.insecure(1).fill(buffer)


@pytest.mark.parametrize("draw", ["bytes", "view"])
def test_a_negative_count_is_refused(draw: str) -> None:
    with pytest.raises(ValueError, match=r"at least zero|negative"):
        getattr(KeyStream.insecure(1), draw)(-1)


def test_nothing_of_the_key_shows_and_nothing_is_copied() -> None:
    source = KeyStream.from_os()
    assert repr(source) == "KeyStream(secure=True)"
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not copied or pickled"):
            attempt(source)


def test_a_secure_stream_takes_a_fresh_key_when_one_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "REKEY_BYTES", 64)
    drawn: list[bytes] = []
    monkeypatch.setattr(stream.os, "urandom", lambda n: drawn.append(bytes([len(drawn)]) * n) or drawn[-1])
    source = KeyStream.from_os()
    got = source.bytes(48) + source.bytes(16) + source.bytes(16)
    assert got == KeyStream(drawn[0]).bytes(64) + KeyStream(drawn[1]).bytes(16)


def test_a_seeded_stream_never_takes_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "REKEY_BYTES", 64)
    source = KeyStream.insecure(5)
    assert source.bytes(50) + source.bytes(50) == KeyStream.insecure(5).bytes(100)


def test_in_a_child_a_seeded_stream_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    source = KeyStream.insecure(5)
    monkeypatch.setattr(stream.os, "getpid", lambda: -1)
    with pytest.raises(FedgenError, match="carried into a child process"):
        source.bytes(1)


FORKED = """
import os
from fedgen.crypto.stream import KeyStream
source = KeyStream.from_os()
source.bytes(10)
reader, writer = os.pipe()
if os.fork() == 0:
    os.write(writer, source.bytes(32))
    os._exit(0)
os.wait()
print(os.read(reader, 32).hex(), source.bytes(32).hex())
"""


@pytest.mark.process
def test_a_forked_child_never_repeats_its_parent() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED], capture_output=True, text=True, check=True, env=os.environ
    )
    child, parent = done.stdout.split()
    assert len(child) == len(parent) == 64
    assert child != parent
