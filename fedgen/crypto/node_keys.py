"""Flower's node keys: EC P-384 in OpenSSH's form, the one form that Flower reads.

Such a key opens the door of Flower's fleet routes and nothing else: what a site sends is signed by its identity key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from fedgen.errors import Code, IntegrityError

if TYPE_CHECKING:
    from pathlib import Path

NODE_KEY_TYPE: Final = "ecdsa-sha2-nistp384"


def make_node_key() -> bytes:
    """Return a fresh private node key, OpenSSH PEM without a passphrase: Flower asks for none."""
    key = ec.generate_private_key(ec.SECP384R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def node_public(private: bytes, *, where: str | Path | None = None) -> str:
    """Return the public half of a node key as one line of OpenSSH, without a comment or line break.

    Raises:
        IntegrityError: It is no OpenSSH key on P-384 (code ``malformed``); no byte of it is in the text.
    """
    try:
        key = load_ssh_private_key(private, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise IntegrityError("this is no OpenSSH key on P-384", code=Code.MALFORMED, where=where)
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def check_node_public(line: str) -> None:
    """Return if a line is a public node key in the only form that :func:`node_public` writes.

    Raises:
        IntegrityError: It is not, or it names no point of the curve (code ``malformed``).
    """
    try:
        key = load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if (
        not isinstance(key, ec.EllipticCurvePublicKey)
        or not isinstance(key.curve, ec.SECP384R1)
        or key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() != line
    ):
        raise IntegrityError("this is no public node key on P-384", code=Code.MALFORMED)
