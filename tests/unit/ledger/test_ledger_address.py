"""A URL is taken apart once; nothing that is shown of it holds a user, a password or an option."""

import sys
from pathlib import Path

import pytest
from support.open_ledgers import opened

from fedgen.errors import ConfigError, MissingExtra
from fedgen.ledger.address import Server, default_name, ledgers_on, place_of, shown
from fedgen.ledger.verify import verify

SECRET = "hunter2"  # noqa: S105 -- what must not be shown


@pytest.mark.parametrize(
    ("url", "text", "conninfo", "name"),
    [
        ("postgresql://db/claims", "postgresql://db/claims", "postgresql://db/claims", None),
        (
            f"postgresql://ann:{SECRET}@db:5433/claims?ledger=a_1",
            "postgresql://db:5433/claims?ledger=a_1",
            f"postgresql://ann:{SECRET}@db:5433/claims",
            "a_1",
        ),
        (
            f"postgresql:///claims?host=/run/pg&ledger=x&password={SECRET}",
            "postgresql:///claims?ledger=x",
            f"postgresql:///claims?host=/run/pg&password={SECRET}",
            "x",
        ),
        (
            f"postgresql://ann:{SECRET}@[::1]:5432,b:5432/claims?sslmode=verify-full",
            "postgresql://[::1]:5432,b:5432/claims",
            f"postgresql://ann:{SECRET}@[::1]:5432,b:5432/claims?sslmode=verify-full",
            None,
        ),
    ],
)
def test_a_url_is_taken_apart(url: str, text: str, conninfo: str, name: str | None) -> None:
    place = place_of(url)
    assert isinstance(place, Server)
    assert (str(place), place.conninfo, place.ledger) == (text, conninfo, name)
    assert shown(url) == text
    assert SECRET not in f"{place} {place!r} {shown(url)}"
    assert place_of(place) is place


@pytest.mark.parametrize("url", ["postgresql://ann@db/claims?ledger=x", "postgresql:///claims?host=/run/pg"])
def test_a_url_that_went_through_a_path_is_a_url(url: str) -> None:
    assert place_of(Path(url)) == place_of(url)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ann:{SECRET}@db",
        f"postgresql://ann:{SECRET}@db/",
        f"postgresql://ann:{SECRET}/x@db/claims",
        f"postgresql://ann:{SECRET}?x@db/claims",
        f"postgresql://ann:{SECRET}#x@db/claims",
        f"postgresql://ann:{SECRET}@db/claims#x",
        f"postgresql://ann:{SECRET}@[db/claims",
        f"postgresql://ann:{SECRET}@db:port/claims",
        f"postgresql://ann:{SECRET}@db/claims?ledger=",
        f"postgresql://ann:{SECRET}@db/claims?ledger=A",
        f"postgresql://ann:{SECRET}@db/claims?ledger=a;drop",
        f"postgresql://ann:{SECRET}@db/claims?ledger=a&ledger=b",
        f"postgresql://ann:{SECRET}@db/cla ims",
        f"postgresql://ann:{SECRET}@db/claims\n?ledger=a",
        f"postgresql://{SECRET}/a/b",
    ],
)
def test_what_is_no_address_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(ConfigError, match="not the address of a ledger") as caught:
        place_of(url)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert shown(url) == "postgresql://..."


def test_a_path_is_a_path() -> None:
    assert place_of("books/ledger.db") == Path("books/ledger.db")
    assert shown(Path("books/ledger.db")) == "books/ledger.db"


def test_a_ledger_without_a_name_is_named_after_its_origin() -> None:
    names = [
        default_name(origin) for origin in ("Hospital 3/claims", "Hospital 3-claims", "3", "é", "x" * 300)
    ]
    assert names[0].startswith("hospital_3_claims_")
    assert len(set(names)) == len(names)
    for name in names:
        assert Server.parse(f"postgresql://db/claims?ledger={name}").schema == f"fedgen_{name}"
        assert len(f"fedgen_{name}") <= 63


def test_without_its_driver_a_server_needs_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "fedgen.ledger._postgres", raising=False)
    monkeypatch.delattr("fedgen.ledger._postgres", raising=False)
    url = f"postgresql://ann:{SECRET}@db/claims"
    for call in (
        lambda: verify(f"{url}?ledger=x"),
        lambda: opened(url),
        lambda: ledgers_on(Server.parse(url)),
    ):
        with pytest.raises(MissingExtra, match="a postgresql:// ledger needs an extra") as caught:
            call()
        assert "fedgen[sql]" in str(caught.value)
        assert SECRET not in str(caught.value)
