"""Certificates: held against a real TLS handshake, not against what they say of themselves."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from fedgen.crypto.certificates import (
    belongs,
    check_authority,
    issue,
    make_authority,
    read_certificate,
    signed_by,
)
from fedgen.errors import Code, IntegrityError

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime.now(UTC)
AUTHORITY = make_authority("fedgen test", days=30, now=NOW)
HOSTS = ("coordinator.example.org", "127.0.0.1", "::1")


def shake_hands(folder: Path, served: tuple[bytes, bytes], trusted: bytes, host: str) -> None:
    """Connect to a server with one certificate as a client that trusts one authority; in memory."""
    (folder / "tls.key").write_bytes(served[0])
    (folder / "tls.crt").write_bytes(served[1])
    there = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    there.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    here = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    here.verify_flags |= ssl.VERIFY_X509_STRICT
    here.load_verify_locations(cadata=trusted.decode())
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = here.wrap_bio(down, up, server_hostname=host)
    server = there.wrap_bio(up, down, server_side=True)
    for _ in range(4):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert client.version() is not None
    client.write(b"x")
    assert server.read() == b"x"


@pytest.mark.parametrize("host", HOSTS)
def test_a_client_that_trusts_the_authority_connects_by_name_and_by_address(
    host: str, tmp_path: Path
) -> None:
    shake_hands(tmp_path, issue(AUTHORITY, HOSTS, days=10, now=NOW), AUTHORITY[1], host)


@pytest.mark.parametrize("host", ["other.example.org", "127.0.0.2", "example.org"])
def test_another_host_is_refused(host: str, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match=r"mismatch|not valid for"):
        shake_hands(tmp_path, issue(AUTHORITY, HOSTS, days=10, now=NOW), AUTHORITY[1], host)


def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    then = NOW - timedelta(days=20)
    old = issue(make_authority("a", days=300, now=then), HOSTS, days=1, now=then)
    authority = make_authority("a", days=300, now=then)
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        shake_hands(tmp_path, issue(authority, HOSTS, days=1, now=then), authority[1], HOSTS[0])
    assert read_certificate(old[1]).ends < NOW


def test_one_of_another_authority_is_refused_though_the_names_are_alike(tmp_path: Path) -> None:
    other = make_authority("fedgen test", days=30, now=NOW)
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(tmp_path, issue(other, HOSTS, days=10, now=NOW), AUTHORITY[1], HOSTS[0])
    assert not signed_by(issue(other, HOSTS, days=10, now=NOW)[1], AUTHORITY[1])


def test_a_server_certificate_cannot_sign_others(tmp_path: Path) -> None:
    leaf = issue(AUTHORITY, HOSTS, days=10, now=NOW)
    below = issue(leaf, HOSTS, days=5, now=NOW)
    (tmp_path / "sub").mkdir()
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(tmp_path / "sub", (below[0], below[1] + leaf[1]), AUTHORITY[1], HOSTS[0])


def test_each_of_the_bars_to_signing_others_is_there() -> None:
    """Any one of them would do for a client that looks at it."""
    leaf, authority = (
        x509.load_pem_x509_certificate(pem).extensions
        for pem in (issue(AUTHORITY, HOSTS, days=10, now=NOW)[1], AUTHORITY[1])
    )
    assert leaf.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert leaf.get_extension_for_class(x509.KeyUsage).value.key_cert_sign is False
    assert authority.get_extension_for_class(x509.BasicConstraints).value.path_length == 0


def test_what_a_certificate_says() -> None:
    found = read_certificate(issue(AUTHORITY, HOSTS, days=10, now=NOW)[1])
    assert found.subject == HOSTS[0]
    assert found.hosts == HOSTS
    assert abs(found.ends - NOW - timedelta(days=10)) < timedelta(seconds=2)
    assert found.begins < NOW  # a client whose clock is slow connects, too
    assert len(found.fingerprint) == 64


def test_none_outlives_its_authority() -> None:
    authority = make_authority("short", days=5, now=NOW)
    assert (
        read_certificate(issue(authority, HOSTS, days=90, now=NOW)[1]).ends
        == read_certificate(authority[1]).ends
    )
    with pytest.raises(IntegrityError, match="expired"):
        issue(authority, HOSTS, days=90, now=NOW + timedelta(days=6))


def test_an_authority_is_known_as_one() -> None:
    check_authority(AUTHORITY[1])
    assert belongs(*AUTHORITY)
    leaf = issue(AUTHORITY, HOSTS, days=10, now=NOW)
    assert signed_by(leaf[1], AUTHORITY[1])
    for other in (leaf[1], AUTHORITY[1] + AUTHORITY[1], b"", b"x" * 5000, AUTHORITY[0]):
        with pytest.raises(IntegrityError) as error:
            check_authority(other, where="ca.crt")
        assert error.value.code is Code.MALFORMED


def _forged(key, *, ca: bool, signer=None) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False, content_commitment=False, key_encipherment=False,
                data_encipherment=False, key_agreement=False, key_cert_sign=True, crl_sign=False,
                encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
    )  # fmt: skip
    return builder.sign(signer or key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_what_only_looks_like_an_authority_is_refused() -> None:
    p256 = ec.generate_private_key(ec.SECP256R1())
    check_authority(_forged(p256, ca=True))  # the builder makes sound ones, too
    for pem in (
        _forged(p256, ca=False),
        _forged(ec.generate_private_key(ec.SECP384R1()), ca=True),
        _forged(rsa.generate_private_key(65537, 2048), ca=True),
        _forged(p256, ca=True, signer=ec.generate_private_key(ec.SECP256R1())),
    ):
        with pytest.raises(IntegrityError):
            check_authority(pem)


def test_key_and_certificate_of_two_authorities_issue_nothing() -> None:
    other = make_authority("x", days=5, now=NOW)
    assert not belongs(other[0], AUTHORITY[1])
    assert not belongs(b"rubbish", AUTHORITY[1])
    assert not signed_by(b"rubbish", AUTHORITY[1])
    with pytest.raises(IntegrityError, match="do not belong together"):
        issue((other[0], AUTHORITY[1]), HOSTS, days=1, now=NOW)
