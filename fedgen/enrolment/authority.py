"""A coordinator's certificates on the disk: its authority, and the server certificate that is renewed under it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fedgen._files import flush_folder
from fedgen.config.server import split_address
from fedgen.crypto.certificates import (
    Certificate,
    belongs,
    check_authority,
    issue,
    make_authority,
    read_certificate,
    signed_by,
)
from fedgen.enrolment.places import read_private
from fedgen.enrolment.signed import read_bounded
from fedgen.errors import Code, ConfigError, IntegrityError
from fedgen.runs.atomic import storage, write_private

if TYPE_CHECKING:
    from datetime import datetime

    from fedgen.config.server import ServerSpec
    from fedgen.enrolment.server_home import KeyAndCertificate, ServerHome

AUTHORITY_DAYS: Final = 3650
LOOPBACK: Final = ("localhost", "127.0.0.1")  # Flower's own processes reach the SuperLink there
_MAX_PEM: Final = 4096


def hosts_of(address: str) -> tuple[str, ...]:
    """Return the hosts that a server certificate is for: the one of its address first, then this machine."""
    host = split_address(address)[0]
    return (host, *(name for name in LOOPBACK if name != host))


def make_certificates(home: ServerHome, now: datetime) -> None:
    """Make the authority and the server certificate of a new coordinator, if they are not there.

    Raises:
        ConfigError: Sites are enrolled and the authority they trust is gone; or the disk is full.
        IntegrityError: The authority is damaged or has expired.
    """
    missing = [path for path in home.ca if not path.exists()]
    if missing and home.sites():
        raise ConfigError(
            "is gone, and the enrolled sites trust it",
            where=missing[0],
            hint="restore it, or make a new one with `fedgen keys rotate ca` and invite every site again",
        )
    if missing:
        _write(home.ca, make_authority(f"fedgen {home.spec().name}", days=AUTHORITY_DAYS, now=now))
    renew(home, now)


def renew(home: ServerHome, now: datetime, *, again: bool = False, spec: ServerSpec | None = None) -> bool:
    """Make the server certificate if it is needed; say whether one was written.

    It is needed where there is none, its key does not belong to it, its authority or address is another, or less than a
    quarter of its time is left. Sites need not do anything: they trust the authority.

    Guarantees:
        - A kill between the writing of key and certificate leaves no pair that does not match.

    Args:
        home: The coordinator's home, with its file and its authority.
        now: The present instant.
        again: Whether to make a new one in any case.
        spec: The server's file as it was when the server started; None reads it now.

    Raises:
        ConfigError: A key is missing or open to others, or the disk is full.
        IntegrityError: The authority is damaged or has expired.
    """
    spec = home.spec() if spec is None else spec
    hosts = hosts_of(spec.address)
    if not again and not _wanted(home, hosts, now):
        return False
    _write(home.tls, issue(_authority(home), hosts, days=spec.tls_days, now=now))
    return True


def renew_inner(home: ServerHome, now: datetime) -> None:
    """Make the certificate that Flower's SuperLink shows on loopback, to this machine's own processes.

    It is not the one that sites see: a SuperLink reads its certificate when it starts and never again, so this one is
    made when the server starts and lasts as long as the authority, while the other is renewed under a server that runs.
    It is for loopback alone, so who has its key cannot pass for the coordinator.

    Raises:
        ConfigError: A key is missing or open to others, or the disk is full.
        IntegrityError: The authority is damaged or has expired.
    """
    _write(home.superlink_tls, issue(_authority(home), LOOPBACK, days=AUTHORITY_DAYS, now=now))


def new_authority(home: ServerHome, now: datetime) -> None:
    """Put another authority in the place of the one there, and a server certificate under it.

    Edge cases:
        - Sites trust the old one until they accept a new invitation: until then they do not connect.

    Raises:
        ConfigError: The disk is full.
        IntegrityError: As :func:`renew`.
    """
    _write(home.ca, make_authority(f"fedgen {home.spec().name}", days=AUTHORITY_DAYS, now=now))
    renew(home, now, again=True)


def authority_pem(home: ServerHome) -> str:
    """Return the authority's certificate, PEM.

    Raises:
        ConfigError: It is missing.
        IntegrityError: It is no certificate of an authority.
    """
    pem = read_bounded(home.ca.certificate, most=_MAX_PEM, follow=False)
    check_authority(pem, where=home.ca.certificate)
    return pem.decode("ascii")


def certificates(home: ServerHome) -> dict[str, Certificate]:
    """Return what the authority's and the server's certificates say, as ``ca`` and ``tls``.

    Raises:
        ConfigError: One is missing.
        IntegrityError: One is damaged.
    """
    found = {}
    for name, pair in (("ca", home.ca), ("tls", home.tls)):
        pem = read_bounded(pair.certificate, most=_MAX_PEM, follow=False)
        found[name] = read_certificate(pem, where=pair.certificate)
    return found


def _wanted(home: ServerHome, hosts: tuple[str, ...], now: datetime) -> bool:
    """Say whether the server needs another certificate."""
    if not home.tls.key.exists() or not home.tls.certificate.exists():
        return True
    pem = read_bounded(home.tls.certificate, most=_MAX_PEM, follow=False)
    try:
        found = read_certificate(pem)
    except IntegrityError:
        return True
    fits = belongs(read_private(home.tls.key), pem) and signed_by(pem, authority_pem(home).encode())
    late = now > found.ends - (found.ends - found.begins) / 4
    return not fits or late or set(found.hosts) != set(hosts)


def _authority(home: ServerHome) -> tuple[bytes, bytes]:
    """Return the authority's key and certificate, held against each other."""
    key, certificate = read_private(home.ca.key), authority_pem(home).encode()
    if not belongs(key, certificate):
        raise IntegrityError(
            "the authority's key and certificate do not belong together",
            code=Code.MALFORMED,
            where=home.ca.key,
            hint="restore both, or make a new authority with `fedgen keys rotate ca`",
        )
    return key, certificate


def _write(pair: KeyAndCertificate, made: tuple[bytes, bytes]) -> None:
    """Put a key and its certificate in place, the old certificate away before the key changes.

    So a kill leaves a key without a certificate, which is made again, and never one under another's certificate.
    """
    with storage(pair.certificate):
        pair.certificate.unlink(missing_ok=True)
        flush_folder(pair.certificate.parent)
    write_private(pair.key, made[0])
    write_private(pair.certificate, made[1])
