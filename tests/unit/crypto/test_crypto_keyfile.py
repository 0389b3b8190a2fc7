"""Key files: born closed, refused when open, damaged or of another type."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from fedgen.crypto.keys import SealingKey, SigningKey
from fedgen.errors import ConfigError, IntegrityError

if TYPE_CHECKING:
    from pathlib import Path

Private = type[SigningKey] | type[SealingKey]
both = pytest.mark.parametrize("kind", [SigningKey, SealingKey])


@both
def test_load_is_the_inverse_of_save(kind: Private, tmp_path: Path) -> None:
    key = kind.generate()
    key.save(tmp_path / "key")
    again = kind.load(tmp_path / "key")
    assert again.public == key.public
    assert again.fingerprint == key.fingerprint
    assert again._secret == key._secret


def test_a_loaded_key_signs_and_unseals(tmp_path: Path) -> None:
    signer, sealer = SigningKey.generate(), SealingKey.generate()
    signer.save(tmp_path / "signing")
    sealer.save(str(tmp_path / "sealing"))
    signer.verify_key.verify("a", b"x", SigningKey.load(tmp_path / "signing").sign("a", b"x"))
    assert SealingKey.load(str(tmp_path / "sealing")).public == sealer.public


@both
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_the_file_is_private_whatever_the_umask(kind: Private, umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        kind.generate().save(tmp_path / "key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o644, 0o777])
def test_a_file_open_to_others_is_refused_with_a_remedy(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "key"
    SigningKey.generate().save(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match=f"open to others .mode {mode:04o}") as error:
        SigningKey.load(path)
    assert error.value.hint == f"chmod 600 {path}"
    path.chmod(0o400)
    SigningKey.load(path)


def test_an_existing_file_or_link_is_never_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "target"
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "file").write_text("precious")
    for name in ("link", "file"):
        with pytest.raises(ConfigError, match="there already"):
            SigningKey.generate().save(tmp_path / name)
    assert not target.exists()
    assert (tmp_path / "file").read_text() == "precious"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file") as error:
        SigningKey.generate().save(tmp_path / "no" / "key")
    assert error.value.where == str(tmp_path / "no" / "key")
    with pytest.raises(ConfigError, match="cannot open"):
        SigningKey.load(tmp_path / "no" / "key")


def test_a_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match="No space left"):
        SigningKey.generate().save(tmp_path / "key")
    assert not (tmp_path / "key").exists()


def test_a_key_of_another_type_is_refused(tmp_path: Path) -> None:
    SealingKey.generate().save(tmp_path / "key")
    with pytest.raises(ConfigError, match="another type; a signing key is needed"):
        SigningKey.load(tmp_path / "key")


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_not_a_plain_file_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    if kind == "folder":
        path.mkdir(mode=0o700)
    else:
        os.mkfifo(path, 0o600)
    with pytest.raises(ConfigError, match=r"not a plain file"):
        SigningKey.load(path)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"\xff\xfe",
        b"secret-of-somebody",
        b"FEDGEN-SIGNING-KEY-2 " + b"0" * 64 + b" " + b"0" * 32,
        b"FEDGEN-SIGNING-KEY-1 " + b"0" * 63 + b" " + b"0" * 32,
        b"FEDGEN-SIGNING-KEY-1 " + b"0" * 64 + b" " + b"0" * 32 + b"\nmore",
        b"FEDGEN-SIGNING-KEY-1 " + b"0" * 5000,
    ],
)
def test_a_file_that_holds_no_key_is_refused_without_quoting_it(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a fedgen key file") as error:
        SigningKey.load(written(tmp_path / "key", content))
    assert "somebody" not in str(error.value)
    assert "0000" not in str(error.value)


@both
def test_every_damaged_digit_is_found(kind: Private, tmp_path: Path) -> None:
    kind.generate().save(tmp_path / "key")
    line = (tmp_path / "key").read_bytes()
    start = line.index(b" ") + 1
    for index in range(start, len(line) - 1):
        wrong = bytearray(line)
        wrong[index] = ord("0") if line[index] != ord("0") else ord("1")
        with pytest.raises((ConfigError, IntegrityError)) as error:
            kind.load(written(tmp_path / "key", bytes(wrong)))
        assert line[start : start + 16].decode() not in str(error.value)


@both
@pytest.mark.parametrize("size", [1, 31, 33, 95, 97])
def test_a_secret_of_another_length_is_refused(kind: Private, size: int, tmp_path: Path) -> None:
    tag = kind.tag.encode()
    content = b"FEDGEN-" + tag + b"-KEY-1 " + b"00" * size + b" " + b"0" * 32
    with pytest.raises(IntegrityError, match="damaged"):
        kind.load(written(tmp_path / "key", content))
