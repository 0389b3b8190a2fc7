"""What the person who guards the data does with rule packs: lint, show and sign them, and decide cases.

Nothing here imports torch, pandas or pyarrow: ``fedgen policy decide`` answers before one could notice.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedgen.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import date

    from fedgen.crypto.keys import VerifyKey
    from fedgen.policy.pack import Pack
    from fedgen.policy.pack_lint import Finding
    from fedgen.policy.packs import LoadedPack
    from fedgen.schema.lines import Lines

PathLike = str | os.PathLike[str]
DEFAULT: Final = ("gdpr", "ccpa")
MAX_CASES: Final = 64 * 2**20
_SYSTEM: Final = ("PACK_SIGNATURE_INVALID", "PACK_EXPIRED")


@dataclass(frozen=True, slots=True)
class Linted:
    """What lint found in one file.

    Attributes:
        name: As it was given.
        loaded: The pack; None if the file is no pack.
        findings: Faults and the one-based line of each, or None; errors first.
    """

    name: str
    loaded: LoadedPack | None
    findings: tuple[tuple[Finding, int | None], ...]

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(finding.level == "error" for finding, _ in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "pack": self.name,
            **({} if self.loaded is None else identity(self.loaded)),
            "errors": self.errors,
            "findings": [
                {"level": it.level, "key": it.key, "line": line, "what": it.what, "hint": it.hint}
                for it, line in self.findings
            ],
        }


def lint_packs(
    names: Sequence[PathLike], keys: Iterable[VerifyKey] = (), *, today: date | None = None
) -> tuple[Linted, ...]:
    """Return what is wrong with packs, each with its line; a file that is no pack is a finding, not an end.

    Args:
        names: Shipped packs by name, others by path.
        keys: Keys whose signatures count.
        today: Rows that ended by then are over; the machine's date if left out.
    """
    from datetime import UTC, datetime

    known = tuple(keys)
    return tuple(_linted(str(name), known, today or datetime.now(UTC).date()) for name in names)


def _linted(name: str, keys: tuple[VerifyKey, ...], today: date) -> Linted:
    from fedgen.policy.pack_lint import Finding, lint
    from fedgen.policy.packs import SHIPPED, load_pack

    try:
        loaded = load_pack(name, keys)
    except ConfigError as error:
        if name not in SHIPPED and not Path(name).is_file():
            raise
        found = Finding(
            "error", error.key or "", error.what, error.hint or "see docs/reference/policy-pack.md"
        )
        return Linted(name, None, ((found, error.line),))
    findings = lint(loaded.pack, today)
    if not loaded.trusted:
        untrusted = Finding(
            "warning",
            "signature",
            "nobody you trust answers for it; it denies everything",
            "fedgen policy sign",
        )
        findings = (*findings, untrusted)
    lines = _lines(name)
    return Linted(name, loaded, tuple((it, _line(loaded.pack, lines, it.key)) for it in findings))


def _lines(name: str) -> Lines:
    """Return the lines of a pack's keys."""
    from fedgen.schema.yamlsource import parse_yaml

    path = _file_of(name)
    return parse_yaml(path.read_text(encoding="utf-8"), path)[1]


def _file_of(name: str) -> Path:
    from fedgen._resources import kit
    from fedgen.policy.packs import SHIPPED

    return kit("policies", f"{name}.yaml") if name in SHIPPED else Path(name)


def _line(pack: Pack, lines: Lines, key: str) -> int | None:
    """Return the line of a dotted key, or of what holds it; rules and countries are items of a list."""
    table, _, name = key.partition(".")
    listed: Sequence[str] = getattr(pack, table) if table in {"rules", "eea"} else ()
    if name in listed:
        return lines.of((table, len(listed) - 1 - list(reversed(listed)).index(name)))
    return lines.of(tuple(int(part) if part.isdigit() else part for part in key.split(".")))


def identity(loaded: LoadedPack) -> dict[str, Any]:
    """Return what a pack is, and who answers for it."""
    return {
        **loaded.reference,
        "law": loaded.pack.law,
        "trusted": loaded.trusted,
        "signer": loaded.signer,
        "signed_off_by": loaded.pack.signed_off_by,
    }


def show_pack(name: PathLike, keys: Iterable[VerifyKey] = ()) -> dict[str, Any]:
    """Return a pack for a person to read: who answers for it, when it holds, its rules with code and law, its facts.

    Raises:
        ConfigError: There is no such pack.
    """
    from fedgen.policy.engine import rules_of
    from fedgen.policy.packs import load_pack

    loaded = load_pack(_named(name), keys)
    pack = loaded.pack
    return {
        **identity(loaded),
        "title": pack.title,
        "notice": pack.notice,
        "in_force_from": pack.in_force_from.isoformat(),
        "in_force_to": None if pack.in_force_to is None else pack.in_force_to.isoformat(),
        "rules": [{"rule": it.id, "code": str(it.code), "citation": it.citation} for it in rules_of(pack)],
        "purposes": {name: it.model_dump(mode="json") for name, it in pack.purposes.items()},
        "retention_rules": {name: it.model_dump(mode="json") for name, it in pack.retention_rules.items()},
        "max_store_age": pack.max_store_age,
        "cohort_floor": pack.cohort_floor,
    }


def copy_pack(name: PathLike, target: PathLike) -> None:
    """Copy a pack, byte for byte, into a new file; nobody answers for the copy once it is changed.

    Raises:
        ConfigError: There is no such pack, or something lies there already.
    """
    place = Path(target)
    try:
        with place.open("xb") as file:
            file.write(_file_of(str(name)).read_bytes())
    except FileExistsError:
        raise ConfigError("this file is there already", where=place, hint="choose another name") from None


@dataclass(frozen=True, slots=True)
class Signed:
    """A pack that was signed: where the signature lies, whose it is, and the file with the public key."""

    signature: Path
    signer: str
    public: Path
    new_key: bool


def sign_pack(path: PathLike, key: PathLike, *, new_key: bool = False) -> Signed:
    """Sign a pack, so that sites that know the key believe it.

    Guarantees:
        - A key that is made here is private to its owner (0600), and is never written over another.
        - The pack passed lint: what has an error is not signed.

    Args:
        path: The pack's file.
        key: The file of the private key; ``FILE.pub`` beside it gets the public one, 64 hex digits.
        new_key: Make the key.

    Raises:
        ConfigError: The pack has errors, the key is not there, or is there and a new one was asked for.
    """
    from fedgen.crypto.keys import SigningKey
    from fedgen.policy import packs
    from fedgen.runs.atomic import write_text

    (linted,) = lint_packs([path])
    if linted.errors:
        finding, line = linted.findings[0]
        raise ConfigError(
            finding.what, where=str(path), line=line, key=finding.key or None, hint=finding.hint
        )
    place = Path(key)
    if new_key:
        if place.exists():
            raise ConfigError("this key is there already", where=place, hint="leave --new-key out to use it")
        SigningKey.generate().save(place)
    elif not place.exists():
        raise ConfigError("no such key", where=place, hint="--new-key makes one")
    signing = SigningKey.load(place)
    public = place.with_name(place.name + ".pub")
    write_text(public, signing.public.hex() + "\n")
    return Signed(packs.sign_pack(Path(path), signing), signing.verify_key.fingerprint, public, new_key)


def pack_keys(files: Sequence[PathLike]) -> tuple[VerifyKey, ...]:
    """Return the public keys in files, 64 hex digits each.

    Raises:
        ConfigError: A file cannot be read, or holds something else.
    """
    if not files:
        return ()
    from fedgen.api.ledgers import read_key

    return tuple(read_key(file) for file in files)


def load_laws(names: Sequence[PathLike], keys: Iterable[VerifyKey] = ()) -> dict[str, LoadedPack]:
    """Return packs by law.

    Raises:
        ConfigError: There is no such pack, or two are for one law.
        UsageError: None is named.
    """
    from fedgen.policy.packs import load_packs

    if not names:
        raise UsageError("no pack is named", hint="--packs gdpr,ccpa")
    return load_packs([_named(name) for name in names], keys)


def _named(name: PathLike) -> str | Path:
    return name if isinstance(name, str) else Path(name)


def stopped(answers: Sequence[dict[str, Any]]) -> str | None:
    """Return the code of a pack that may not decide at all, if one stands in answers; else None."""
    return next((code for code in _SYSTEM if any(it["reason_code"] == code for it in answers)), None)


def decide_file(
    path: PathLike, names: Sequence[PathLike] = DEFAULT, keys: Iterable[VerifyKey] = ()
) -> list[dict[str, Any]]:
    """Return ``{id, decision, reason_code, also, citation}`` for each case of a file, in order.

    Guarantees:
        - One answer for each case; a case that cannot be understood is quarantined.

    Args:
        path: JSON: a list of cases, or one; up to 64 MiB.
        names: Packs by name or path.
        keys: Keys whose signatures count.

    Raises:
        ConfigError: The file or a pack cannot be read.
    """
    from fedgen.policy.cases import decide_cases

    cases = read_cases(path)
    return decide_cases(cases, load_laws(names, keys))


def read_cases(path: PathLike) -> Any:
    """Return the JSON value of a file of cases.

    Raises:
        ConfigError: It is missing, larger than 64 MiB, not JSON, or a key stands twice in one object.
    """
    place = Path(path)
    try:
        with place.open("rb") as file:
            content = file.read(MAX_CASES + 1)
    except FileNotFoundError:
        raise ConfigError("no such file", where=place, hint="check the path") from None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or 'input error'}", where=place) from None
    if len(content) > MAX_CASES:
        raise ConfigError("larger than 64 MiB", where=place, hint="split the cases over several files")
    try:
        return json.loads(content.decode("utf-8-sig"), object_pairs_hook=_distinct, parse_constant=_no_number)
    except UnicodeDecodeError:
        raise ConfigError("not UTF-8 text", where=place, hint="save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        hint = "cases are one JSON list, or one object"
        raise ConfigError(f"not valid JSON: {error.msg}", where=place, line=error.lineno, hint=hint) from None
    except (ValueError, RecursionError) as error:
        what = str(error) if isinstance(error, _Odd) else "not readable as JSON"
        raise ConfigError(what, where=place, hint="mend the file") from None


class _Odd(ValueError):
    """JSON that says two things at once, or no number."""


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Odd("a key stands twice in one object")
    return found


def _no_number(_: str) -> Any:
    raise _Odd("NaN and infinity are not numbers of JSON")
