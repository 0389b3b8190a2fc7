"""Sign, seal and open, as honest parties use them. The hostile ones are in tests/protocol."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from fedgen import messages
from fedgen.crypto import chunks, envelope
from fedgen.crypto.envelope import Expectation, Header, open_frame, peek, seal_frame, sign_frame
from fedgen.crypto.keys import SealingKey, SigningKey
from fedgen.errors import Code, IntegrityError
from fedgen.messages import Kind

STUDY, RUN = "11" * 32, "22" * 32
SIGNER, SEALER = SigningKey.generate(), SealingKey.generate()
DOWN = Header(
    kind=Kind.TRAIN, study_hash=STUDY, run=RUN, round=1, attempt=1, sender="coordinator", recipient="*"
)
UP = Header(
    kind=Kind.TRAINED, study_hash=STUDY, run=RUN, round=1, attempt=1, sender="site-1", recipient="coordinator"
)
AT_SITE = Expectation(study_hash=STUDY, run=RUN, recipient="site-1")
AT_COORDINATOR = Expectation(study_hash=STUDY, run=RUN, recipient="coordinator")


def train(body: bytes) -> bytes:
    message = messages.Train(study_hash=STUDY, run=RUN, round=1, attempt=1, parameters=1, digest=RUN)
    return messages.encode(message, body)


def trained(body: bytes) -> bytes:
    message = messages.Trained(
        study_hash=STUDY,
        run=RUN,
        site="site-1",
        round=1,
        attempt=1,
        parameters=1,
        steps=1,
        weights=RUN,
        excluded={},
    )
    return messages.encode(message, body)


def opened(data: bytes, expect: Expectation, sealing_key: SealingKey | None = None) -> bytes:
    return bytes(open_frame(data, verify_key=SIGNER.verify_key, sealing_key=sealing_key, expect=expect)[1])


def test_open_is_the_inverse_of_sign() -> None:
    frame = train(b"weights")
    data = sign_frame(frame, DOWN, SIGNER)
    assert isinstance(data, bytes)
    assert opened(data, AT_SITE) == frame
    assert frame in data


@pytest.mark.parametrize("size", [0, 1, 4096, 2**20 - 300, 2**20, 2_611_296])
def test_open_is_the_inverse_of_seal(size: int) -> None:
    frame = trained(np.random.default_rng(size).bytes(size))
    data = seal_frame(frame, UP, SIGNER, SEALER.public)
    assert isinstance(data, bytes)
    assert opened(data, AT_COORDINATOR, SEALER) == frame
    assert len(data) == len(peek(data).encode()) + envelope.SEAL_BYTES + chunks.sealed_size(len(frame)) + 64


def test_a_body_around_the_chunk_size_is_cut_where_the_spec_says() -> None:
    frame = trained(b"")
    for size in (2**20 - 1, 2**20, 2**20 + 1):
        whole = trained(bytes(size - len(frame)))
        assert len(whole) == size
        assert opened(seal_frame(whole, UP, SIGNER, SEALER.public), AT_COORDINATOR, SEALER) == whole


def test_a_sealed_frame_shows_nothing_of_its_body() -> None:
    body = b"canary-canary-canary"
    data = seal_frame(trained(body), UP, SIGNER, SEALER.public)
    assert body not in data
    assert b"excluded" not in data


def test_the_same_frame_is_never_sealed_alike() -> None:
    first, second = (seal_frame(trained(b"x" * 64), UP, SIGNER, SEALER.public) for _ in range(2))
    start = len(peek(first).encode())
    assert first[:start] == second[:start]
    blocks = {data[i : i + 16] for data in (first, second) for i in range(start, len(data) - 15, 16)}
    assert len(blocks) == 2 * len(range(start, len(first) - 15, 16))


def test_peek_tells_the_header_without_keys() -> None:
    header = peek(seal_frame(trained(b"x"), UP, SIGNER, SEALER.public))
    assert (header.sender, header.recipient, header.kind, header.sealed) == (
        "site-1",
        "coordinator",
        Kind.TRAINED,
        True,
    )
    assert header.key == SEALER.fingerprint[:16]
    assert header.body_bytes == len(trained(b"x"))


def test_what_the_envelope_sets_cannot_be_lied_about() -> None:
    lie = DOWN.model_copy(update={"sealed": True, "body_bytes": 1, "key": "ab" * 8})
    header = peek(sign_frame(train(b""), lie, SIGNER))
    assert (header.sealed, header.body_bytes, header.key) == (False, len(train(b"")), "")


def test_a_signed_letter_to_one_site_opens_there() -> None:
    data = sign_frame(train(b""), DOWN.model_copy(update={"recipient": "site-1"}), SIGNER)
    assert opened(data, AT_SITE) == train(b"")


def test_an_update_is_never_sent_in_clear() -> None:
    with pytest.raises(ValueError, match="never sent in clear"):
        sign_frame(trained(b"x"), UP, SIGNER)


def test_a_seal_is_for_one_recipient() -> None:
    with pytest.raises(ValueError, match="one recipient"):
        seal_frame(trained(b"x"), UP.model_copy(update={"recipient": "*"}), SIGNER, SEALER.public)


@pytest.mark.parametrize("frame", [b"", b"FDGN", b"FDGN\x01", b"FDGN\x02\x03", trained(b"")])
def test_a_frame_of_another_kind_is_not_wrapped(frame: bytes) -> None:
    with pytest.raises(ValueError, match="not of kind TRAIN"):
        sign_frame(frame, DOWN, SIGNER)
    with pytest.raises(ValueError, match="not of kind TRAIN"):
        seal_frame(frame, DOWN.model_copy(update={"recipient": "site-1"}), SIGNER, SEALER.public)


def test_a_frame_over_the_limit_is_not_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "MAX_FRAME", 100)
    with pytest.raises(IntegrityError) as error:
        sign_frame(train(b""), DOWN, SIGNER)
    assert error.value.code is Code.TOO_LARGE


def test_what_comes_out_is_read_only_and_independent_of_the_next_seal() -> None:
    first = seal_frame(trained(b"first"), UP, SIGNER, SEALER.public)
    frame = open_frame(first, verify_key=SIGNER.verify_key, sealing_key=SEALER, expect=AT_COORDINATOR)[1]
    seal_frame(trained(b"other"), UP, SIGNER, SEALER.public)
    assert frame.readonly
    assert bytes(frame) == trained(b"first")
    clear = bytearray(sign_frame(train(b""), DOWN, SIGNER))
    assert open_frame(clear, verify_key=SIGNER.verify_key, sealing_key=None, expect=AT_SITE)[1].readonly


def test_a_large_envelope_keeps_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelope, "_KEPT", 4096)
    monkeypatch.setattr(envelope, "_scratch", type("Empty", (), {})())
    frame = trained(bytes(8192))
    assert opened(seal_frame(frame, UP, SIGNER, SEALER.public), AT_COORDINATOR, SEALER) == frame
    assert not hasattr(envelope._scratch, "buffer")


def test_many_threads_seal_at_once() -> None:
    frames = [trained(bytes([i]) * 50_000) for i in range(40)]
    with ThreadPoolExecutor(4) as pool:
        sealed = list(pool.map(lambda frame: seal_frame(frame, UP, SIGNER, SEALER.public), frames))
    assert [opened(data, AT_COORDINATOR, SEALER) for data in sealed] == frames


def test_naming_the_package_does_not_load_cryptography() -> None:
    code = "import fedgen.crypto, sys; print(any(m.split('.')[0] == 'cryptography' for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_no_part_of_it_loads_torch_or_numpy() -> None:
    code = (
        "import fedgen.crypto.envelope, fedgen.crypto.stream, sys; "
        "print({'torch', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
