"""Requests, invitations and rotations: what each must say, and fingerprints that people can compare."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError
from support.enrolling import NOW

from fedgen.crypto.certificates import make_authority
from fedgen.crypto.keys import SealingKey, SigningKey, fingerprint
from fedgen.crypto.node_keys import make_node_key, node_public
from fedgen.enrolment.documents import (
    MAX_ROTATIONS,
    Invitation,
    Request,
    Rotation,
    SignedRotation,
    instant,
    leads_from,
    moment,
    same_fingerprint,
    shown,
)
from fedgen.enrolment.signed import decode, encode
from fedgen.errors import Refused

SITE, LEDGER, COORDINATOR = (SigningKey._from_secret(bytes([n]) * 32) for n in (1, 2, 3))
NODE = node_public(make_node_key())
CA = make_authority("test", days=9, now=NOW)[1].decode()
SEALING = SealingKey._from_secret(bytes(range(96))).public.hex()


def request(**changes: Any) -> Request:
    fields: dict[str, Any] = {
        "name": "hospital-a", "identity": SITE.public.hex(), "ledger": LEDGER.public.hex(), "node": NODE,
        "rows": 1200, "persons": 900, "number": 1, "issued": moment(NOW),
    }  # fmt: skip
    return Request(**fields | changes)


def invitation(**changes: Any) -> Invitation:
    fields: dict[str, Any] = {
        "coordinator": COORDINATOR.public.hex(), "sealing": SEALING, "name": "coordinator", "address": "a.example:443",
        "ca": CA, "site": "hospital-a", "site_key": SITE.fingerprint, "number": 1, "issued": moment(NOW),
        "expires": moment(NOW + timedelta(days=365)),
    }  # fmt: skip
    return Invitation(**fields | changes)


def rotation(old: SigningKey, new: SigningKey, number: int = 1, **changes: Any) -> SignedRotation:
    fields: dict[str, Any] = {
        "role": "site", "name": "hospital-a", "number": number, "old": old.public.hex(), "new": new.public.hex(),
        "issued": moment(NOW),
    }  # fmt: skip
    return SignedRotation.make(Rotation(**fields | changes), old)


def test_both_come_back_from_their_files() -> None:
    assert decode(encode(request(), SITE), Request) == request()
    assert decode(encode(invitation(), COORDINATOR), Invitation) == invitation()
    assert len(encode(invitation(), COORDINATOR)) < 8192


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Hospital"), ("name", ""), ("name", "a" * 64), ("name", "../x"), ("name", "coordinator"),
        ("identity", "00"),
        ("identity", "G" * 64), ("ledger", SITE.public.hex()), ("node", "ssh-ed25519 AAAA"), ("node", f"{NODE} x"),
        ("rows", 1234), ("rows", 0), ("rows", -5), ("rows", True), ("rows", 1200.0), ("persons", 901), ("number", 0),
        ("number", 2**31 + 1), ("issued", "2026-11-21"), ("issued", "2026-13-21T12:00:00Z"),
        ("issued", "2026-11-21T12:00:00+00:00"), ("issued", "2026-1-021T12:00:00Z"),
    ],
)  # fmt: skip
def test_what_a_request_may_not_say(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        request(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("address", "a"), ("address", "http://a:1"), ("sealing", "00"), ("ca", "x"), ("ca", CA + CA), ("site", "A"),
        ("ca", "-----BEGIN CERTIFICATE-----\n" + "A" * 5000 + "\n-----END CERTIFICATE-----\n"),
        ("site_key", ""), ("expires", moment(NOW)), ("expires", moment(NOW - timedelta(days=1))), ("number", 0),
    ],
)  # fmt: skip
def test_what_an_invitation_may_not_say(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        invitation(**{field: value})


def test_an_invitation_is_for_one_site_one_key_and_a_time() -> None:
    it = invitation()
    it.check_for("hospital-a", SITE.public, NOW)
    it.check_for("hospital-a", SITE.public, NOW - timedelta(minutes=30))  # a clock that is a little slow
    it.check_for("hospital-a", SITE.public, NOW + timedelta(days=364, hours=23))
    for name, key, when, words in (
        ("hospital-b", SITE, NOW, "another site"),
        ("hospital-a", LEDGER, NOW, "another key"),
        ("hospital-a", SITE, NOW + timedelta(days=365), "expired"),
        ("hospital-a", SITE, NOW - timedelta(hours=2), "earlier here"),
    ):
        with pytest.raises(Refused, match=words):
            it.check_for(name, key.public, when)


KEYS = [SigningKey._from_secret(bytes([n]) * 32) for n in range(10, 40)]


def chain(length: int, start: int = 0) -> tuple[SignedRotation, ...]:
    return tuple(rotation(KEYS[n], KEYS[n + 1], n + 1) for n in range(start, start + length))


def test_a_chain_leads_from_every_key_in_it_to_the_one_in_use() -> None:
    it = request(identity=KEYS[3].public.hex(), rotations=chain(3))
    assert [leads_from(KEYS[n].public.hex(), it.rotations) for n in range(5)] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert decode(encode(it, KEYS[3]), Request) == it
    longest = request(identity=KEYS[MAX_ROTATIONS].public.hex(), rotations=chain(MAX_ROTATIONS))
    assert len(encode(longest, KEYS[MAX_ROTATIONS])) < 32 * 1024


@pytest.mark.parametrize(
    "rotations",
    [
        chain(2),  # does not end with the key in use
        (*chain(1), *chain(1, start=2)),  # one is missing
        (rotation(KEYS[2], KEYS[3], 3, name="hospital-b"),),
        (rotation(KEYS[2], KEYS[3], 3, role="coordinator"),),
        (SignedRotation(rotation=chain(3)[2].rotation, signature="00" * 64),),
        (SignedRotation(rotation=chain(3)[2].rotation, signature=chain(3)[1].signature),),
        (rotation(KEYS[1], KEYS[2], 7), rotation(KEYS[2], KEYS[3], 3)),  # numbers do not follow
        chain(3)[::-1],
    ],
)
def test_a_broken_chain_is_refused(rotations: tuple[SignedRotation, ...]) -> None:
    with pytest.raises(ValidationError):
        request(identity=KEYS[3].public.hex(), rotations=rotations)


def test_a_chain_is_bounded() -> None:
    with pytest.raises(ValidationError):
        request(identity=KEYS[MAX_ROTATIONS + 1].public.hex(), rotations=chain(MAX_ROTATIONS + 1))


def test_a_fingerprint_is_what_two_people_can_compare() -> None:
    key = SITE.public.hex()
    said = shown(key)
    assert said.replace(" ", "") == SITE.fingerprint[:32]
    assert [len(group) for group in said.split()] == [4] * 8
    for written in (said, said.upper(), said.replace(" ", "-"), said.replace(" ", ":"), SITE.fingerprint):
        assert same_fingerprint(written, key)
    for written in (
        "",
        said[:-1],
        said[:20],
        said + " 0000",
        "0" * 32,
        shown(LEDGER.public.hex()),
        f"{said} x",
    ):
        assert not same_fingerprint(written, key)


def test_fingerprints_of_other_uses_of_the_same_bytes_differ() -> None:
    assert fingerprint("sealing", SITE.public) != SITE.fingerprint


def test_moments_come_back_and_drop_fractions() -> None:
    assert instant(moment(NOW)) == NOW
    assert moment(NOW + timedelta(microseconds=5)) == moment(NOW)
