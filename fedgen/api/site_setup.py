"""The making of a home: its file from the reference configuration, its keys, and for a site its first request."""

from __future__ import annotations

import re
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import yaml
from pydantic import ValidationError

from fedgen._resources import kit
from fedgen.config.password import address_of, check_takes_password, variable_of
from fedgen.config.reference_file import Scalar, fill, switch_off
from fedgen.config.server import parse_server
from fedgen.config.site import DeclaredSpec, parse_site
from fedgen.data.partition import declared_size
from fedgen.enrolment import server_side, site_side
from fedgen.enrolment.places import alone
from fedgen.errors import ConfigError, UsageError
from fedgen.runs.atomic import write_private
from fedgen.schema.yamlsource import load_yaml

if TYPE_CHECKING:
    from datetime import datetime

    from fedgen.api.enrolment import Terms
    from fedgen.enrolment.documents import Request
    from fedgen.enrolment.server_home import ServerHome
    from fedgen.enrolment.site_home import SiteHome
    from fedgen.schema.lines import Key
    from fedgen.schema.table import Schema

_FILE: Final = re.compile(
    r"(?P<scheme>(?:csv|parquet)://|sqlite:///|)(?P<path>[^?]+)(?P<rest>\?.*)?", re.DOTALL
)
_MERGE: Final = 2**20
_ANOTHER: Final = {
    "name": "name another folder, or give what is in the file",
    "address": "name another folder; or change it there, then: fedgen server invite, and the sites join again",
}


def begin_site(
    home: SiteHome, name: str, terms: Terms, now: datetime
) -> tuple[Request, bytes, tuple[str, ...], bool]:
    """Make what is not there yet of a site's home; return its request, its bytes, keys to fill in, and if it is new.

    Guarantees:
        - Whatever is there stays. Where a value of the file was changed since, a further request says so.
        - Terms that a file which is there already does not say are refused, never passed over: an owner who names a
          lower ceiling would take it to be in force.
        - Nothing is made where the terms cannot make a file.

    Raises:
        ConfigError: As :func:`fedgen.api.enrolment.site_init`.
        UsageError: The number of rows is needed.
    """
    drafted = None if home.config.exists() else _site_file(home, name, terms)
    site_side.make_folders(home)
    with alone(home.root):
        before = site_side.own_request(home)
        _check_same(home.config, "name", name)
        if before is None:
            site_side.make_site_keys(home)
        else:
            _check_keys(home)
        to_do: tuple[str, ...] = ()
        if home.config.exists():
            _check_terms(home.config, terms)
        else:
            text, to_do = drafted or _site_file(home, name, terms)
            write_private(home.config, text.encode())
        declared = declared_in(home)
        rows = declared_size(declared.rows)
        persons = None if declared.persons is None else declared_size(declared.persons)
        if before is not None and site_side.says(home, before, rows, persons):
            return before, home.request.read_bytes(), to_do, False
        request, data = site_side.write_request(home, name=name, rows=rows, persons=persons, now=now)
        return request, data, to_do, before is None


def begin_server(
    home: ServerHome,
    address: str,
    *,
    name: str,
    state: str | None,
    now: datetime,
    state_password: str | None = None,
) -> None:
    """Make what is not there yet of a coordinator's home.

    Raises:
        ConfigError: As :func:`fedgen.api.enrolment.server_init`.
    """
    values: dict[Key, Scalar] = {("name",): name, ("address",): address}
    if state is not None:
        values["state",] = state
    if state_password is not None:
        values["state_password",] = absolute_reference(state_password)
    text = fill(_reference("server", "server.yaml"), values)
    spec = parse_server(yaml.safe_load(text), where=home.config)  # before anything is made
    check_takes_password(spec.state, spec.state_password, where=home.config, key="state_password")
    server_side.make_server_folders(home)
    with alone(home.root):
        _check_same(home.config, "address", address)
        if not home.config.exists():
            write_private(home.config, text.encode())
        server_side.make_server_keys(home, now)


def declared_in(home: SiteHome) -> DeclaredSpec:
    """Return the size in a site's file, even if other keys of it wait to be filled in.

    Raises:
        ConfigError: It is not there, or not a size.
    """
    data, lines = load_yaml(home.config)
    declared = data.get("declared") if isinstance(data, dict) else None
    try:
        return DeclaredSpec.model_validate(declared)
    except ValidationError:
        raise ConfigError(
            "the request needs the declared size",
            where=home.config,
            line=lines.of(("declared",)) if declared is not None else None,
            key="declared",
            hint="rows, and persons if the schema names them",
        ) from None


def _check_same(config: Path, key: str, value: str) -> None:
    """Refuse to go on with a home that was begun for another name or address."""
    if not config.exists() and not config.is_symlink():
        return
    data, lines = load_yaml(config)
    found = data.get(key) if isinstance(data, dict) else None
    if found != value:
        raise ConfigError(
            f"this home was begun with another {key}",
            where=config,
            line=lines.of((key,)),
            key=key,
            hint=_ANOTHER[key],
        )


def _check_terms(config: Path, terms: Terms) -> None:
    """Refuse terms that a site's file does not say, and name the key; what the file says is not shown."""
    data, lines = load_yaml(config)
    for key, value in _values(terms).items():
        found: object = data
        for part in key:
            found = found.get(part) if isinstance(found, dict) else None
        if found != value:
            raise ConfigError(
                "this home's file says something else, and it is not overwritten",
                where=config,
                line=lines.of(key),
                key=".".join(map(str, key)),
                hint="change it there, and start the daemon again; or leave the option out",
            )


def _values(terms: Terms) -> dict[Key, Scalar]:
    """Return what the terms say, as it would stand in a site's file."""
    ceilings = ("epsilon_per_study", "epsilon_per_year", "epsilon_life", "delta")
    password = terms.source_password
    values: dict[Key, Scalar] = {
        ("source",): None if terms.source is None else absolute(terms.source),
        ("source_password",): None if password is None else absolute_reference(password),
        ("schema",): None if terms.schema is None else str(terms.schema.absolute()),
        ("declared", "rows"): None if terms.rows is None else declared_size(terms.rows),
        ("declared", "persons"): None if terms.persons is None else declared_size(terms.persons),
        **{("ceilings", key): getattr(terms, key) for key in ceilings},
    }
    return {key: value for key, value in values.items() if value is not None}


def _check_keys(home: SiteHome) -> None:
    """Refuse to make a key in silence that was there when the site asked to be enrolled."""
    for kind, path in (
        ("identity", home.identity_key), ("ledger", home.ledger_key), ("node", home.node_key),
    ):  # fmt: skip
        if not path.exists():
            raise ConfigError(
                "is gone, and the site was enrolled with it",
                where=path,
                hint=f"restore it, or: fedgen keys new {kind}",
            )


def _site_file(home: SiteHome, name: str, terms: Terms) -> tuple[str, tuple[str, ...]]:
    """Return a site's file, filled in as far as the terms go, and the keys that are not."""
    source = None if terms.source is None else absolute(terms.source)
    schema = None if terms.schema is None else str(terms.schema.absolute())
    password = None if terms.source_password is None else absolute_reference(terms.source_password)
    check_takes_password(source or "", password, where=home.config, key="source_password")
    rows, persons = _size(home, source, password, schema, terms)
    ceilings: dict[Key, Scalar] = {
        ("ceilings", key): getattr(terms, key) for key in ("epsilon_per_study", "epsilon_life", "delta")
    }
    values: dict[Key, Scalar] = {
        ("name",): name,
        ("source",): source,
        ("schema",): schema,
        ("declared", "rows"): rows,
        **ceilings,
    }
    if password is not None:
        values["source_password",] = password
    if persons is not None:
        values["declared", "persons"] = persons
    if terms.epsilon_per_year is not None:
        values["ceilings", "epsilon_per_year"] = terms.epsilon_per_year
    text = _reference("clients", "site.yaml")
    if schema is None and source is not None and source.startswith("builtin:"):
        del values["schema",]
        text = switch_off(text, "schema")
    given = {key: value for key, value in values.items() if value is not None}
    parse_site(yaml.safe_load(fill(text, given)), where=home.config)
    to_do = tuple(".".join(map(str, key)) for key, value in values.items() if value is None)
    return fill(text, values), to_do


def _reference(*parts: str) -> str:
    return kit(*parts).read_text(encoding="utf-8")


def absolute(source: str) -> str:
    """Return an address with its path made absolute: the home is not where the command was given."""
    match = _FILE.fullmatch(source.strip())
    if match is None or (not match["scheme"] and re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", source.strip())):
        return source.strip()
    return f"{match['scheme']}{Path(match['path']).expanduser().absolute()}{match['rest'] or ''}"


def absolute_reference(reference: str) -> str:
    """Return where a password lies with its path made absolute, as :func:`absolute` does for an address.

    Raises:
        UsageError: It is no reference, such as the password itself; it is not quoted.
    """
    kind, _, path = reference.partition(":")
    if kind == "file" and path:
        return f"file:{Path(path).expanduser().absolute()}"
    if variable_of(reference) is None:
        hint = (
            "write env:NAME or file:PATH; if that was the password, change it: the shell keeps what was typed"
        )
        raise UsageError("a password is named by where it lies, and not given here", hint=hint)
    return reference


def _size(
    home: SiteHome, source: str | None, password: str | None, schema: str | None, terms: Terms
) -> tuple[int, int | None]:
    """Return the rows and persons to declare, to two digits; what was not said is counted."""
    if terms.rows is not None:
        return declared_size(terms.rows), None if terms.persons is None else declared_size(terms.persons)
    if source is None:
        raise UsageError("--rows is needed where no --source is given", hint="about how many rows there are")
    source = address_of(source, password, base=Path.cwd(), where=home.config, key="source_password")
    rows, persons = counted(source, None if schema is None else Path(schema))
    persons = persons if terms.persons is None else terms.persons
    return declared_size(rows), None if persons is None else declared_size(persons)


def counted(source: str, schema: Path | None) -> tuple[int, int | None]:
    """Return how many rows a table has, and of how many persons, where its schema says whose they are.

    Guarantees:
        - One column is read, in batches; eight bytes are kept of each person.

    Raises:
        ConfigError: Source or schema cannot be read.
        DataError: The table has no rows, or not the column that names the person.
    """
    from fedgen.data.sources import open_source

    table = open_source(source, base=Path.cwd(), may_query=True)  # the site's own address
    known = _schema(source, schema)
    subject = getattr(known, "subject", None)
    rows, persons, waiting = 0, np.empty(0, dtype=np.uint64), list[int]()
    for batch in table.batches([subject] if subject is not None else table.columns[:1]):
        rows += batch.num_rows
        if subject is not None:
            waiting += [_short(it) for it in batch.column(0).unique().to_pylist() if it is not None]
        if len(waiting) > _MERGE:
            persons, waiting = _merged(persons, waiting), []
    return rows, None if subject is None else len(_merged(persons, waiting))


def _schema(source: str, schema: Path | None) -> Schema | None:
    if schema is not None:
        from fedgen.schema.table import load_schema

        return load_schema(schema)
    if source.startswith("builtin:"):
        from fedgen.data.builtin import builtin_schema

        return builtin_schema(source.removeprefix("builtin:"))
    return None


def _short(person: Any) -> int:
    return int.from_bytes(blake2b(str(person).encode(), digest_size=8).digest(), "big")


def _merged(
    persons: np.ndarray[Any, np.dtype[np.uint64]], waiting: list[int]
) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.union1d(persons, np.array(waiting, dtype=np.uint64))
