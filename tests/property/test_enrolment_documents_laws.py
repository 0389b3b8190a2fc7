"""Documents of enrolment, whatever stands in them: they come back, and nothing else passes for them."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime, timedelta

from hypothesis import assume, given
from hypothesis import strategies as st

from fedgen.config.server import split_address
from fedgen.crypto.keys import SigningKey
from fedgen.data.partition import declared_size
from fedgen.enrolment.documents import (
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
from fedgen.enrolment.signed import MAX_DOCUMENT, decode, encode
from fedgen.errors import FedgenError

KEYS = [SigningKey._from_secret(bytes([n]) * 32) for n in range(1, 20)]
NODE = "ecdsa-sha2-nistp384 " + "A" * 182 + "=="
CA = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"

names = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)
counts = st.integers(1, 10**12).map(declared_size)
numbers = st.integers(1, 2**31)
moments = st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
hosts = st.one_of(
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]{2,6}){0,3}", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda it: f"[{it}]"),
)


@st.composite
def addresses(draw: st.DrawFn) -> str:
    host = draw(hosts)
    assume(not host.split(".")[-1].isdigit() or host.count(".") == 3)
    return f"{host}:{draw(st.integers(1, 65535))}"


@st.composite
def chains(draw: st.DrawFn, role: str, name: str) -> tuple[tuple[SignedRotation, ...], SigningKey]:
    """Return rotations of one party, and the key that they lead to."""
    length, first = draw(st.integers(0, 5)), draw(st.integers(1, 1000))
    made = tuple(
        SignedRotation.make(
            Rotation(
                role=role,
                name=name,
                number=first + place,
                old=KEYS[place].public.hex(),
                new=KEYS[place + 1].public.hex(),
                issued=moment(draw(moments)),
            ),
            KEYS[place],
        )
        for place in range(length)
    )
    return made, KEYS[length]


@st.composite
def requests(draw: st.DrawFn) -> tuple[Request, SigningKey]:
    name = draw(names)
    rotations, key = draw(chains("site", name))
    made = Request(
        name=name,
        identity=key.public.hex(),
        ledger=KEYS[-1].public.hex(),
        node=NODE,
        rows=draw(counts),
        persons=draw(st.none() | counts),
        number=draw(numbers),
        issued=moment(draw(moments)),
        rotations=rotations,
    )
    return made, key


@st.composite
def invitations(draw: st.DrawFn) -> tuple[Invitation, SigningKey]:
    name, begins = draw(names), draw(moments)
    rotations, key = draw(chains("coordinator", name))
    made = Invitation(
        coordinator=key.public.hex(),
        sealing=draw(st.binary(min_size=1216, max_size=1216)).hex(),
        name=name,
        address=draw(addresses()),
        ca=CA,
        site=draw(names),
        site_key=draw(st.sampled_from(KEYS)).fingerprint,
        number=draw(numbers),
        issued=moment(begins),
        expires=moment(begins + timedelta(seconds=draw(st.integers(1, 10**8)))),
        rotations=rotations,
    )
    return made, key


@given(requests())
def test_a_request_comes_back_from_its_file(made: tuple[Request, SigningKey]) -> None:
    request, key = made
    data = encode(request, key)
    assert len(data) <= MAX_DOCUMENT
    assert decode(data, Request) == request
    assert encode(decode(data, Request), key) == data


@given(invitations())
def test_an_invitation_comes_back_from_its_file(made: tuple[Invitation, SigningKey]) -> None:
    invitation, key = made
    assert decode(encode(invitation, key), Invitation) == invitation


@given(requests(), st.data())
def test_a_changed_byte_is_refused_or_changes_nothing(
    made: tuple[Request, SigningKey], data: st.DataObject
) -> None:
    request, key = made
    sent = bytearray(encode(request, key))
    place = data.draw(st.integers(0, len(sent) - 1))
    sent[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(FedgenError):
        assert decode(bytes(sent), Request) == request


@given(requests(), st.data())
def test_a_changed_value_is_always_refused(made: tuple[Request, SigningKey], data: st.DataObject) -> None:
    request, key = made
    outer = json.loads(encode(request, key))
    field = data.draw(st.sampled_from(sorted(outer["body"])))
    value = data.draw(
        st.none() | st.integers() | st.text(max_size=70) | st.lists(st.integers(), max_size=2) | names
    )
    assume(outer["body"][field] != value)
    outer["body"][field] = value
    try:
        decode(json.dumps(outer).encode(), Request)
    except FedgenError:
        return
    raise AssertionError(field)


@given(st.binary(max_size=300))
def test_any_bytes_raise_errors_of_ours_only(data: bytes) -> None:
    for form in (Request, Invitation):
        try:
            decode(data, form)
        except FedgenError:
            continue
        raise AssertionError


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
        max_leaves=12,
    )
)
def test_any_json_as_a_body_raises_errors_of_ours_only(body: object) -> None:
    document = {"format": "fedgen-request-1", "body": body, "signature": "0" * 128}
    try:
        decode(json.dumps(document).encode(), Request)
    except FedgenError:
        return
    raise AssertionError


@given(requests())
def test_rotations_lead_from_every_old_key_and_from_no_other(made: tuple[Request, SigningKey]) -> None:
    request, _ = made
    length = len(request.rotations)
    assert all(leads_from(key.public.hex(), request.rotations) for key in KEYS[:length])
    assert not any(leads_from(key.public.hex(), request.rotations) for key in KEYS[length:])


@given(
    st.sampled_from(KEYS), st.sampled_from(KEYS), st.sampled_from([" ", "-", ":", "", "  "]), st.booleans()
)
def test_a_fingerprint_is_known_however_it_is_written_and_for_its_key_only(
    one: SigningKey, other: SigningKey, between: str, upper
) -> None:
    said = shown(one.public.hex()).replace(" ", between)
    said = said.upper() if upper else said
    assert same_fingerprint(said, other.public.hex()) is (one is other)


@given(st.text(max_size=40))
def test_any_text_is_an_address_that_means_one_thing_or_none(text: str) -> None:
    try:
        host, port = split_address(text)
    except ValueError:
        return
    assert text == (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


@given(addresses())
def test_an_address_comes_apart_and_together(address: str) -> None:
    host, port = split_address(address)
    assert address == (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


@given(moments)
def test_moments_come_back_to_the_second(when: datetime) -> None:
    assert instant(moment(when)) == when.replace(microsecond=0)
