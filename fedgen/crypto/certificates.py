"""Certificates for TLS: an authority of one coordinator alone, and the server certificate that it signs.

A site trusts this one authority for this one address, and no other authority of its machine. Keys are on P-256, the
curve that every TLS library has.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedgen.crypto.digest import sha256_hex
from fedgen.errors import Code, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MAX_PEM: Final = 4096
_EARLIER: Final = timedelta(hours=1)  # a site's clock may be slow
_USAGES: Final = (
    "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
    "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says, as far as it matters here.

    Attributes:
        subject: Its common name.
        hosts: Names and addresses it is for, as written in it.
        begins: From when it is valid.
        ends: Until when.
        fingerprint: SHA-256 over its DER form, hex.
    """

    subject: str
    hosts: tuple[str, ...]
    begins: datetime
    ends: datetime
    fingerprint: str


def make_authority(name: str, *, days: int, now: datetime) -> tuple[bytes, bytes]:
    """Return a fresh authority: its private key and its self-signed certificate, both PEM.

    Guarantees:
        - It can sign server certificates and nothing below them: its path length is zero.

    Args:
        name: Its common name.
        days: How long it is valid, at least one.
        now: The present instant.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _begun(name, name, key.public_key(), now, now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage("key_cert_sign", "crl_sign"), critical=True)
    )
    return _private(key), builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def issue(
    authority: tuple[bytes, bytes], hosts: Sequence[str], *, days: int, now: datetime
) -> tuple[bytes, bytes]:
    """Return a fresh server key and its certificate, signed by an authority, both PEM.

    Guarantees:
        - It is never valid for longer than its authority.

    Args:
        authority: Private key and certificate, as :func:`make_authority` returns them.
        hosts: DNS names and IP addresses it is for, at least one; the first is its common name.
        days: How long it is valid, at least one.
        now: The present instant.

    Raises:
        IntegrityError: The authority's key or certificate is damaged, they do not belong together, or it has expired.
    """
    signer, parent = _key(authority[0]), _parse(authority[1])
    if signer.public_key() != parent.public_key():
        raise IntegrityError(
            "the authority's key and certificate do not belong together", code=Code.MALFORMED
        )
    ends = min(now + timedelta(days=days), parent.not_valid_after_utc)
    if ends <= now:
        raise IntegrityError("the authority has expired", code=Code.LATE, hint="fedgen keys rotate ca")
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = parent.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    builder = (
        _begun(hosts[0][:64], str(issuer), key.public_key(), now, ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(host) for host in hosts]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    return _private(key), builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM)


def read_certificate(pem: bytes, *, where: str | Path | None = None) -> Certificate:
    """Return what a certificate says.

    Raises:
        IntegrityError: This is not one PEM certificate of reasonable size (code ``malformed``).
    """
    found = _parse(pem, where)
    names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Certificate(
        subject=str(names[0].value) if names else "",
        hosts=_hosts(found),
        begins=found.not_valid_before_utc,
        ends=found.not_valid_after_utc,
        fingerprint=sha256_hex(found.public_bytes(Encoding.DER)),
    )


def check_authority(pem: bytes, *, where: str | Path | None = None) -> None:
    """Return if a certificate is an authority as :func:`make_authority` makes them.

    Raises:
        IntegrityError: It is not one certificate, no authority, on another curve, or does not verify under its own
            key (code ``malformed``).
    """
    found = _parse(pem, where)
    key = found.public_key()
    try:
        basic = found.extensions.get_extension_for_class(x509.BasicConstraints)
        usage = found.extensions.get_extension_for_class(x509.KeyUsage)
        sound = basic.critical and basic.value.ca and usage.value.key_cert_sign
        sound = sound and isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)
        if sound:
            found.verify_directly_issued_by(found)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError, TypeError, InvalidSignature):
        sound = False
    if not sound:
        raise IntegrityError("this is no certificate of an authority", code=Code.MALFORMED, where=where)


def belongs(key: bytes, certificate: bytes) -> bool:
    """Say whether a private key and a certificate (both PEM) belong together."""
    try:
        return _key(key).public_key() == _parse(certificate).public_key()
    except IntegrityError:
        return False


def signed_by(certificate: bytes, authority: bytes) -> bool:
    """Say whether an authority's certificate (PEM) signed this one (PEM)."""
    try:
        _parse(certificate).verify_directly_issued_by(_parse(authority))
    except (IntegrityError, ValueError, TypeError, InvalidSignature):
        return False
    return True


def _begun(
    subject: str, issuer: str, public: ec.EllipticCurvePublicKey, now: datetime, ends: datetime
) -> x509.CertificateBuilder:
    """Return what every certificate here has."""
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name(issuer))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - _EARLIER)
        .not_valid_after(ends.astimezone(UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _usage(*allowed: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{name: name in allowed for name in _USAGES})


def _general(host: str) -> x509.GeneralName:
    """Return a host as a certificate names it: an address as an address, anything else as a DNS name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _hosts(found: x509.Certificate) -> tuple[str, ...]:
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return ()
    return tuple(str(name.value) for name in names if isinstance(name, (x509.DNSName, x509.IPAddress)))


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IntegrityError("this is no private key of a certificate", code=Code.MALFORMED)
    return key


def _parse(pem: bytes, where: str | Path | None = None) -> x509.Certificate:
    """Return the one certificate in PEM; a file of several would mean more than was looked at."""
    try:
        found = x509.load_pem_x509_certificates(pem) if len(pem) <= MAX_PEM else []
    except ValueError:
        found = []
    if len(found) != 1:
        raise IntegrityError("this is not one certificate", code=Code.MALFORMED, where=where)
    return found[0]
