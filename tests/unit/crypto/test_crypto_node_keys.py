"""Node keys: what Flower reads, on P-384, and in one form only."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from fedgen.crypto.node_keys import NODE_KEY_TYPE, check_node_public, make_node_key, node_public
from fedgen.errors import Code, IntegrityError

if TYPE_CHECKING:
    from pathlib import Path


def test_each_key_is_fresh_and_its_public_half_is_one_line() -> None:
    one, other = make_node_key(), make_node_key()
    assert one != other
    line = node_public(one)
    assert line.startswith(f"{NODE_KEY_TYPE} ")
    assert len(line.split()) == 2
    assert line != node_public(other)
    check_node_public(line)


def test_flower_itself_reads_both_halves(tmp_path: Path) -> None:
    from flwr.cli.supernode.register import try_load_public_key
    from flwr.supernode.cli.flower_supernode import _try_setup_client_authentication

    private = make_node_key()
    (tmp_path / "node.key").write_bytes(private)
    (tmp_path / "node.pub").write_text(node_public(private) + "\n")
    arguments = argparse.Namespace(
        auth_supernode_private_key=str(tmp_path / "node.key"), auth_supernode_public_key=None
    )
    pair = _try_setup_client_authentication(arguments)
    assert pair is not None
    line = pair[1].public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    assert line == node_public(private)
    assert try_load_public_key(tmp_path / "node.pub")


def _openssh(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> tuple[bytes, str]:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


@pytest.mark.parametrize(
    "other",
    [
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate,
    ],
)
def test_another_kind_of_key_is_refused(other) -> None:
    private, line = _openssh(other())
    with pytest.raises(IntegrityError, match="P-384") as error:
        node_public(private, where="node.key")
    assert error.value.code is Code.MALFORMED
    assert error.value.where == "node.key"
    with pytest.raises(IntegrityError, match="P-384"):
        check_node_public(line)


def test_rubbish_is_refused_without_a_byte_of_it_in_the_error() -> None:
    for rubbish in (b"", b"SECRETS", make_node_key()[:200] + b"SECRETS"):
        with pytest.raises(IntegrityError) as error:
            node_public(rubbish)
        assert "SECRETS" not in str(error.value)


def test_a_line_has_one_form_only() -> None:
    line = node_public(make_node_key())
    for other in (f"{line} comment", f"{line}\n", f" {line}", line[:-4], line.replace("ecdsa", "ECDSA"), ""):
        with pytest.raises(IntegrityError):
            check_node_public(other)


def test_a_point_off_the_curve_is_refused() -> None:
    import base64

    kind, text = node_public(make_node_key()).split()
    blob = bytearray(base64.b64decode(text))
    blob[-1] ^= 1
    with pytest.raises(IntegrityError):
        check_node_public(f"{kind} {base64.b64encode(blob).decode()}")
