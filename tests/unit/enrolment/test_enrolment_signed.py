"""Signed documents: one form, bounded, and signed for one purpose."""

from __future__ import annotations

import json
import os
from typing import ClassVar

import pytest

from fedgen.crypto.keys import SigningKey
from fedgen.enrolment.signed import (
    MAX_DOCUMENT,
    Signed,
    check_signature,
    decode,
    encode,
    label_of,
    read_bounded,
    signature_in,
    signature_of,
)
from fedgen.errors import Code, ConfigError, IntegrityError
from fedgen.messages import Hex32, canonical

KEY = SigningKey._from_secret(bytes(range(32)))


class Note(Signed):
    kind: ClassVar[str] = "note"
    by: Hex32
    text: str
    numbers: tuple[int, ...] = ()

    @property
    def signer(self) -> str:
        return self.by


class Other(Note):
    kind: ClassVar[str] = "other"


BODY = Note(by=KEY.public.hex(), text="é\n", numbers=(1, 2))
DATA = encode(BODY, KEY)


def test_decode_is_the_inverse_of_encode() -> None:
    assert decode(DATA, Note) == BODY
    assert DATA.decode("ascii")
    assert check_signature(BODY, signature_in(DATA)) is None


def test_what_is_signed_is_the_canonical_body_under_the_label_of_its_kind() -> None:
    KEY.verify_key.verify(
        "enrolment/note", canonical(BODY.model_dump(mode="json")), bytes.fromhex(signature_in(DATA))
    )
    assert label_of(Other) == "enrolment/other"


def test_white_space_may_differ_and_a_byte_order_mark_may_stand_before() -> None:
    document = json.loads(DATA)
    for text in (json.dumps(document), json.dumps(document, indent=7), DATA.decode().replace("\n", "\r\n")):
        assert decode(text.encode(), Note) == BODY
    assert decode(b"\xef\xbb\xbf" + DATA, Note) == BODY


def _with(**changes: object) -> bytes:
    document = json.loads(DATA)
    document.update(changes)
    return json.dumps(document).encode()


def _body(**changes: object) -> bytes:
    return _with(body={**json.loads(DATA)["body"], **changes})


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (_body(text="e\n"), Code.BAD_SIGNATURE),
        (_body(numbers=[1, 3]), Code.BAD_SIGNATURE),
        (_body(by=SigningKey.generate().public.hex()), Code.BAD_SIGNATURE),
        (_body(by="00" * 31), Code.MALFORMED),
        (_body(extra=1), Code.MALFORMED),
        (_body(numbers=["1", "2"]), Code.MALFORMED),
        (_body(numbers=[1.0, 2.0]), Code.MALFORMED),
        (_body(text=None), Code.MALFORMED),
        (_with(body=[]), Code.MALFORMED),
        (_with(signature="0" * 128), Code.BAD_SIGNATURE),
        (_with(signature="0" * 126), Code.MALFORMED),
        (_with(signature=signature_in(DATA).upper()), Code.MALFORMED),
        (_with(signature=7), Code.MALFORMED),
        (_with(more=1), Code.MALFORMED),
        (b" " * (MAX_DOCUMENT + 1), Code.TOO_LARGE),
        (DATA + b" " * MAX_DOCUMENT, Code.TOO_LARGE),
    ],
)
def test_what_was_changed_is_refused(data: bytes, code: Code) -> None:
    with pytest.raises(IntegrityError) as error:
        decode(data, Note, where="note.json")
    assert error.value.code is code
    assert error.value.where == "note.json"


def test_every_changed_character_of_the_body_is_noticed() -> None:
    start, end = DATA.index(b'"body"') + 8, DATA.index(b'"signature"')
    for place in range(start, end):
        if DATA[place : place + 1].isspace():
            continue  # between the parts; in a text it is an escape here
        changed = bytearray(DATA)
        changed[place] = ord("0") if changed[place] != ord("0") else ord("1")
        with pytest.raises((IntegrityError, ConfigError)):
            decode(bytes(changed), Note)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[1]",
        b"null",
        b"not json",
        b"\xff\xfe",
        b'{"format": 1}',
        b'{"format": "other-tool-1"}',
        b"[" * 60_000,
        DATA.replace(b'"format"', b'"format": "x", "format"', 1),
        DATA.replace(b'"by"', b'"by": "x", "by"', 1),
        DATA.replace(b"1,", b"NaN,", 1),
    ],
)
def test_what_is_no_document_is_a_wrong_file(data: bytes) -> None:
    with pytest.raises(ConfigError, match="is not a document of fedgen"):
        decode(data, Note)


def test_one_kind_never_passes_for_another() -> None:
    with pytest.raises(ConfigError, match="another kind"):
        decode(DATA, Other)
    renamed = _with(format="fedgen-other-1")
    with pytest.raises(IntegrityError) as error:  # the label differs, so the same body is not signed
        decode(renamed, Other)
    assert error.value.code is Code.BAD_SIGNATURE
    with pytest.raises(ConfigError, match="another kind or version"):
        decode(_with(format="fedgen-note-2"), Note)


def test_only_the_named_key_signs() -> None:
    with pytest.raises(ValueError, match="the key it names"):
        signature_of(BODY, SigningKey.generate())
    with pytest.raises(ValueError, match="size limit"):
        encode(BODY.model_copy(update={"text": "x" * MAX_DOCUMENT}), KEY)


def test_no_value_of_a_hostile_body_is_in_the_error() -> None:
    with pytest.raises(IntegrityError) as error:
        decode(_body(numbers="PASSWORD"), Note)
    assert "PASSWORD" not in str(error.value)
    with pytest.raises(IntegrityError) as error:
        decode(_body(**{"k" * 5000: 1}), Note)
    assert len(str(error.value)) < 400


def test_reading_is_bounded_and_follows_no_link_where_none_may_be(tmp_path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(DATA)
    (tmp_path / "link.json").symlink_to(path)
    assert read_bounded(path) == DATA
    assert read_bounded(tmp_path / "link.json") == DATA
    with pytest.raises(ConfigError, match="symbolic link"):
        read_bounded(tmp_path / "link.json", follow=False)
    with pytest.raises(ConfigError, match="not a plain file"):
        read_bounded(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="not a plain file"):  # and does not wait for a writer
        read_bounded(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="no such file"):
        read_bounded(tmp_path / "none")
    path.write_bytes(b"x" * (MAX_DOCUMENT + 1))
    with pytest.raises(IntegrityError, match="64 KiB") as error:
        read_bounded(path)
    assert error.value.code is Code.TOO_LARGE
