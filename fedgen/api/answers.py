"""What a person is answered: where they stand, what is held on them, what they provided, a receipt of their consent."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from fedgen.api.consents import PathLike, open_store
from fedgen.errors import ConfigError, UsageError

Form = Literal["receipt", "access", "portability"]


def status_of(subject: str, store: PathLike | None = None, *, key: PathLike | None = None) -> dict[str, Any]:
    """Return where a person stands now, for every purpose that was ever mentioned, and in their rights.

    Raises:
        DataError: The store does not know the person, or they were erased.
    """
    from fedgen.policy.store.outgoing import status

    with open_store(store, key=key) as opened:
        return status(opened, subject)


def export_person(
    subject: str,
    form: Form,
    store: PathLike | None = None,
    *,
    key: PathLike | None = None,
    purpose: str | None = None,
    issuer: PathLike | None = None,
) -> dict[str, Any]:
    """Return what is handed to a person: a receipt, everything that is held on them, or what they provided.

    Args:
        subject: The person.
        form: ``receipt`` (ISO/IEC TS 27560), ``access`` (Art. 15) or ``portability`` (Art. 20).
        store: See :func:`fedgen.api.consents.open_store`.
        key: See :func:`fedgen.api.consents.open_store`.
        purpose: Of a receipt.
        issuer: Of a receipt: a YAML, TOML or JSON file with what the store does not know.

    Raises:
        UsageError: A receipt without a purpose or an issuer.
        DataError: The store does not know the person, or they said nothing about the purpose.
        ConfigError: The issuer's file is wrong.
    """
    from fedgen.policy.store import outgoing

    if form != "receipt":
        make = outgoing.access if form == "access" else outgoing.portability
        with open_store(store, key=key) as opened:
            return make(opened, subject)
    if purpose is None or issuer is None:
        raise UsageError("a receipt needs --purpose and --issuer", hint="see docs/reference/consent-store.md")
    said = _issuer(issuer)
    with open_store(store, key=key) as opened:
        return outgoing.receipt(opened, subject, purpose, said)


def _issuer(path: PathLike) -> Any:
    """Return who issues a receipt, from a file."""
    from pydantic import TypeAdapter, ValidationError

    from fedgen.policy.store.outgoing import Issuer
    from fedgen.schema.yamlsource import load_yaml

    data, lines = load_yaml(Path(path))
    known = [field.name for field in fields(Issuer)]
    unknown = next((name for name in data if name not in known), None) if isinstance(data, dict) else None
    if unknown is not None:
        hint = f"an issuer has {', '.join(known)}"
        raise ConfigError("unknown key", where=str(path), line=lines.of((unknown,)), key=unknown, hint=hint)
    try:
        return TypeAdapter(Issuer).validate_python(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = tuple(first["loc"])
        key = ".".join(map(str, place)) or None
        hint = "it needs controller, jurisdiction, personal_data, retention, withdrawal and purposes"
        raise ConfigError(
            first["msg"].lower(), where=str(path), line=lines.of(place), key=key, hint=hint
        ) from None


def write_answer(path: PathLike, document: dict[str, Any]) -> str:
    """Write an answer to a person into a new file, mode 0600, and return its SHA-256.

    Raises:
        ConfigError: Something lies there already, or it cannot be written.
    """
    from fedgen.runs.atomic import write_json

    place = Path(path)
    if place.exists():
        raise ConfigError("this file is there already", where=place, hint="choose another name")
    write_json(place, document, private=True)
    return hashlib.sha256(place.read_bytes()).hexdigest()
