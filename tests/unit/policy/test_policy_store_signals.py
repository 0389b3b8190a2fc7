"""Opt-out signals: only what the specifications say is one, and only as a restriction."""

import base64
from datetime import timedelta

import pytest
from support.stores import NOON, Clock, right

from fedgen.errors import DataError
from fedgen.policy.columns import Right
from fedgen.policy.store import ConsentStore
from fedgen.policy.store.signals import gpc_in_headers, gpc_in_json, parse_usca, receive, usca_of

FIELDS = (6, 2, 2, 2, 2, 2, *[2] * 9, 2, 2, 2, 2, 2, 2)


def encoded(bits: str) -> str:
    """Return bits as base64url, padded with zeros to six bits as the specification has it."""
    bits += "0" * (-len(bits) % 6)
    whole = bits + "0" * (-len(bits) % 8)
    return base64.urlsafe_b64encode(int(whole, 2).to_bytes(len(whole) // 8, "big")).decode()[: len(bits) // 6]


def section(**fields: int) -> str:
    values = [1] + [0] * (len(FIELDS) - 1)
    for place, value in fields.items():
        values[int(place[1:])] = value
    return encoded("".join(f"{value:0{size}b}" for value, size in zip(values, FIELDS, strict=True)))


@pytest.mark.parametrize(
    ("headers", "signal"),
    [
        ({"Sec-GPC": "1"}, True),
        ({"sec-gpc": "1"}, True),
        ({"Sec-GPC": "0"}, False),
        ({"Sec-GPC": "true"}, False),
        ({"Sec-GPC": "11"}, False),
        ({"X-Sec-GPC": "1"}, False),
        ({}, False),
    ],
)
def test_the_header_says_one_or_nothing(headers: dict, signal: object) -> None:
    assert gpc_in_headers(headers) is signal


def test_the_json_signal_is_true_or_nothing() -> None:
    assert gpc_in_json({"gpc": True, "lastUpdate": "2026-01-01"})
    assert not any(map(gpc_in_json, ({"gpc": 1}, {"gpc": "true"}, {"gpc": False}, {}, None, [True])))


def test_published_strings_are_read() -> None:
    """Strings of the public reference implementations: iabgpp (``BAAAAAAA.QA``) and iab_gpp (``DBABBg~BAAAAACA``)."""
    plain = parse_usca("BAAAAAAA.QA")
    assert (plain.gpc, plain.rights()) == (False, ())
    whole = usca_of("DBABBg~BAAAAACA")
    assert whole is not None
    assert (whole.gpc, whole.rights()) == (None, ())
    assert usca_of("DBABMA~CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA") is None  # a European string
    assert usca_of("DBACNYA~CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA~1YNN") is None


@pytest.mark.parametrize(
    ("fields", "rights"),
    [
        ({"f4": 1}, ("opt_out_sale_share",)),
        ({"f5": 1}, ("opt_out_sale_share",)),
        ({"f4": 2, "f5": 2}, ()),  # "did not opt out" is no opt-in
        ({"f6": 1}, ("limit_sensitive",)),
        ({"f14": 1}, ("limit_sensitive",)),
        ({"f14": 2}, ()),
        ({"f15": 1}, ("opt_out_sale_share",)),
        ({"f16": 2}, ()),
        ({"f4": 1, "f9": 1}, ("opt_out_sale_share", "limit_sensitive")),
    ],
)
def test_every_field_says_what_it_restricts(fields: dict, rights: tuple) -> None:
    assert parse_usca(section(**fields)).rights() == rights
    assert parse_usca(section(**fields) + ".YA").rights() == ("gpc", *rights)


def test_the_section_is_found_among_others() -> None:
    # sections 2, 6-8 as the header codes them: a single 2, then a range from 4 further to 2 further
    header = encoded("000011" + "000001" + f"{2:012b}" + "0" + "011" + "1" + "1011" + "011")
    found = usca_of(f"{header}~tcf~1YNN~nat~{section(f4=1)}")
    assert found is not None
    assert found.sale_opt_out == 1


@pytest.mark.parametrize(
    "text",
    [
        "BbYbGwXY.YA",  # a 3, which means nothing
        section(f0=2),
        "BAAAAAA",
        "BAAAAAAAA",
        "BAAAAAAA.YA.YA",
        "BAAAAAAA.gA",
        "BAAAAAAA.",
        "BAAAAAAB",
        "BAAAA+AA",
        "BAAAAAA=",
        "",
        "ä" * 8,
    ],
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(DataError):
        parse_usca(text)


@pytest.mark.parametrize(
    "text", ["", "DBABBg", "DBABBg~BAAAAACA~BAAAAACA", "EBABBg~BAAAAACA", "DBABB~x" + "A" * 9000, "~"]
)
def test_a_string_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(DataError):
        usca_of(text)


def test_a_signal_is_written_once_while_it_stands(store: ConsentStore, clock: Clock) -> None:
    for _ in range(3):
        clock.go(minutes=1)
        receive(store, "a", ("gpc", "limit_sensitive"), at=clock(), source="web")
    assert store.columns().rights.kind.tolist() == [Right.GPC, Right.LIMIT_SENSITIVE]
    clock.go(minutes=1)
    store.record(right("a", "opt_in_sale_share", at=clock(), after_conflict_notice=True))
    clock.go(minutes=1)
    assert receive(store, "a", ("gpc",), at=clock(), source="web") == ("gpc",)
    assert store.columns().rights.kind.tolist()[-1] == Right.GPC
    assert receive(store, "b", (), at=NOON - timedelta(1), source="web") == ()
    store.erase("a")
    assert receive(store, "a", ("gpc",), at=clock(), source="web") == ()
