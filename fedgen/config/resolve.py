"""The resolved study: everything the sites agree on, and the hash that is its identity.

A study names files and defaults; a resolved study holds their content: the schema, the roster with declared
sizes, what travels, and the sampling rate. The noise is not in it: the privacy plan derives it from these.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from fedgen.config.base import Frozen
from fedgen.config.fields import MAX_SITES, Count, Rate
from fedgen.config.implied import decided, implied_rate, misfits
from fedgen.config.plain_yaml import plain_yaml
from fedgen.config.study import Study
from fedgen.crypto.digest import sha256_hex
from fedgen.errors import Code, ConfigError, IntegrityError
from fedgen.messages import MAX_HEADER, SiteName, canonical
from fedgen.privacy.units import Trust, Unit
from fedgen.schema.lines import dotted
from fedgen.schema.table import Schema
from fedgen.schema.yamlsource import MAX_BYTES, load_yaml

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class RosterEntry(Frozen):
    """One site of a study.

    Attributes:
        name: Such as ``site-01``.
        rows: Its declared size: a public figure to two digits, which below 100 may be exact; no ε covers it.
        persons: How many persons these rows are of, declared alike; there with ``unit: person``, and only there.
    """

    name: SiteName
    rows: Count
    persons: Count | None = None

    @property
    def sampled(self) -> int:
        """How many of what a step is sampled from: persons where the study protects persons, else rows."""
        return self.rows if self.persons is None else self.persons

    def to_json(self) -> dict[str, Any]:
        """Return the entry as JSON values."""
        return self.model_dump(mode="json", exclude_none=True)


class ResolvedStudy(Frozen):
    """A study with nothing left open; what a coordinator sends and a site checks.

    Guarantees:
        - ``ResolvedStudy.from_json(resolved.canonical()) == resolved``, and no other text is accepted for it.
        - The hash depends on the content alone: not on the process, the machine, or where files lie.
        - An instance never breaks a rule of :mod:`fedgen.config.rules`, and its rate follows from its roster.

    Attributes:
        format: Version of this form.
        study: The study with its defaults.
        data_schema: The schema (key ``schema``): public knowledge only.
        roster: Every site, in order.
        sample_rate: The Poisson rate q of one step at every site, in (0, 1].
        parameters: Length of what a site sends in a round; there with ``trust: distributed``, and only there, because
            noise on a grid depends on it. A site holds it against its own model.
    """

    model_config = ConfigDict(populate_by_name=False)

    format: Literal[1] = 1
    study: Study
    data_schema: Schema = Field(alias="schema")
    roster: Annotated[tuple[RosterEntry, ...], Field(min_length=1, max_length=MAX_SITES)]
    sample_rate: Rate
    parameters: Count | None = None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> ResolvedStudy:
        for fault in misfits(self.study, self.data_schema):
            raise ValueError(f"{fault.key}: {fault.what}")
        names = self.study.data.sites.names()
        if tuple(entry.name for entry in self.roster) != names:
            raise ValueError(f"the roster must name the {len(names)} sites of the study, in order")
        if self.study != decided(self.study):
            raise ValueError("a default was left open")
        _check_persons(self.study, self.roster)
        if self.sample_rate != implied_rate(self.study, [entry.sampled for entry in self.roster]):
            raise ValueError("sample_rate must follow from the study and the roster")
        if (self.parameters is not None) is not (self.study.privacy.trust is Trust.DISTRIBUTED):
            raise ValueError("parameters must be there with trust: distributed, and with no other trust")
        return self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ResolvedStudy) and self._text == other._text

    def __hash__(self) -> int:
        return hash(
            self._hash
        )  # a plan is cached by its study: ten thousand entries are not hashed each time

    @property
    def exchange(self) -> Literal["gradient", "update"]:
        """What travels from a site."""
        return self.study.training.exchanged

    @property
    def quorum(self) -> int:
        """How many sites must answer for a round to count; under distributed trust never fewer than a sum may hold."""
        sites = len(self.roster)
        asked, shared = self.study.training.quorum_of(sites), self.study.secagg
        return asked if shared is None else max(asked, sites - shared.dropouts, shared.threshold or 0)

    @property
    def total_rows(self) -> int:
        """Sum of the declared sizes."""
        return sum(entry.rows for entry in self.roster)

    @property
    def total_sampled(self) -> int:
        """Sum of what steps are sampled from, by declaration: persons with ``unit: person``, else rows."""
        return sum(entry.sampled for entry in self.roster)

    def sampled_of(self, site: str) -> int:
        """Return how many persons (with ``unit: person``) or rows ``site`` declares.

        Raises:
            KeyError: It is not in the roster.
        """
        return self._sampled[site]

    def to_json(self) -> dict[str, Any]:
        """Return the resolved study as JSON values; keys of the study that are None are left out."""
        said: dict[str, Any] = {
            "format": self.format,
            "study": self.study.to_json(),
            "schema": self.data_schema.model_dump(mode="json"),
            "roster": [entry.to_json() for entry in self.roster],
            "sample_rate": self.sample_rate,
        }
        return said if self.parameters is None else {**said, "parameters": self.parameters}

    def canonical(self) -> str:
        """Return the one text of this resolved study: canonical JSON."""
        return self._text

    @property
    def study_hash(self) -> str:
        """SHA-256 of :meth:`canonical`, hex: the identity of the study."""
        return self._hash

    @cached_property
    def _text(self) -> str:
        return canonical(self.to_json()).decode()

    @cached_property
    def _hash(self) -> str:
        return sha256_hex(self._text.encode())

    @cached_property
    def _sampled(self) -> dict[str, int]:
        return {entry.name: entry.sampled for entry in self.roster}

    @classmethod
    def from_json(cls, text: str, *, limit: int = MAX_HEADER) -> ResolvedStudy:
        """Return what :meth:`canonical` wrote; a site uses it on a message it does not trust yet.

        Guarantees:
            - The size is checked before anything is parsed.
            - Only the canonical text is accepted, so the text's hash is the study's hash.

        Args:
            text: Canonical JSON.
            limit: Most bytes of ``text`` in UTF-8.

        Raises:
            IntegrityError: ``too-large``, or ``malformed`` when it is not canonical.
            ConfigError: It is a study this version does not know or keep.
        """
        if len(text) > limit or len(text.encode(errors="replace")) > limit:
            raise IntegrityError("a study over the size limit", code=Code.TOO_LARGE)
        return _parsed(text)

    def to_yaml(self) -> str:
        """Return study.yaml: this resolved study, readable, headed by its hash.

        Raises:
            ConfigError: It would be too large to be read again.
        """
        text = plain_yaml({"study_hash": self.study_hash, **self.to_json()})
        text = f"# Resolved by fedgen; do not edit. The hash is the study's identity.\n{text}"
        if len(text.encode()) > MAX_BYTES:
            raise ConfigError(
                f"the resolved study is larger than {MAX_BYTES // 2**20} MiB", hint="declare fewer categories"
            )
        return text


def read_resolved(path: Path) -> ResolvedStudy:
    """Return the resolved study in a study.yaml; inverse of :meth:`ResolvedStudy.to_yaml`.

    Raises:
        ConfigError: It cannot be read, or it is not the study its hash names.
    """
    data, _lines = load_yaml(path)
    if not isinstance(data, dict) or "study_hash" not in data:
        what, hint = "is not a resolved study: it has no study_hash", "name the study.yaml of a run folder"
        raise ConfigError(what, where=path, hint=hint)
    claimed = data.pop("study_hash")
    try:
        resolved = ResolvedStudy.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"is not a resolved study of this version: {_first(error)}", where=path) from error
    if resolved.study_hash != claimed:
        raise ConfigError(
            "was changed: its content does not have the hash it names",
            where=path,
            key="study_hash",
            hint="a resolved study is never edited; change your own study file and run it",
        )
    return resolved


def resolve(
    study: Study,
    *,
    schema: Schema,
    sizes: Sequence[int],
    persons: Sequence[int] | None = None,
    parameters: int | None = None,
) -> ResolvedStudy:
    """Return ``study`` with nothing left open.

    Guarantees:
        - Under local trust, and with ``unit: site``, the rate is ``min(1, batch · sites / total)``: ``batch`` on
          average per site. Otherwise it is ``min(1, batch / total)``: ``batch`` over all sites together. Total and
          batch are in persons with ``unit: person``, else in rows.

    Args:
        study: As read from its file.
        schema: What ``data.schema`` names, or the builtin's own.
        sizes: Declared rows of each site, in roster order, each at least one.
        persons: Declared persons of each site, each at least one; with ``unit: person`` only, where it is needed.
        parameters: Length of what a site sends in a round; with ``trust: distributed`` only, where it is needed.

    Raises:
        ConfigError: A rule is broken; ``key`` names where.
    """
    for fault in misfits(study, schema):
        raise fault
    names = study.data.sites.names()
    if len(sizes) != len(names):
        raise ConfigError(
            f"the study has {len(names)} sites, {len(sizes)} have a size", key="data.sites.count"
        )
    if min(sizes) < 1:
        raise ConfigError("a site has no rows", key="data.sites.count", hint="use fewer sites")
    counted = persons if study.privacy.unit is Unit.PERSON else None
    if study.privacy.unit is Unit.PERSON and (counted is None or len(counted) != len(names)):
        raise ConfigError(
            "unit: person needs the declared number of persons of every site",
            key="privacy.unit",
            hint="declare persons beside rows",
        )
    distributed = study.privacy.trust is Trust.DISTRIBUTED
    if distributed and parameters is None:
        raise ConfigError(
            "trust: distributed needs the length of what a site sends",
            key="privacy.trust",
            hint="count the model's parameters",
        )
    roster = tuple(
        RosterEntry(name=name, rows=rows, persons=None if counted is None else counted[position])
        for position, (name, rows) in enumerate(zip(names, sizes, strict=True))
    )
    return ResolvedStudy(
        study=decided(study),
        schema=schema,
        roster=roster,
        sample_rate=implied_rate(study, [entry.sampled for entry in roster]),
        parameters=parameters if distributed else None,
    )


def _check_persons(study: Study, roster: Sequence[RosterEntry]) -> None:
    """Raise ``ValueError`` unless the roster counts persons exactly where the study protects them."""
    wanted = study.privacy.unit is Unit.PERSON
    if any((entry.persons is not None) is not wanted for entry in roster):
        raise ValueError("the roster must declare persons with unit: person, and with no other unit")
    if any(entry.persons is not None and entry.persons > entry.rows for entry in roster):
        raise ValueError("a site cannot have more persons than rows")


@lru_cache(maxsize=8)
def _parsed(text: str) -> ResolvedStudy:
    """Parse a study once for all the sites of one process; the value is frozen, so it can be shared."""
    try:
        resolved = ResolvedStudy.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError(f"a study this version does not take: {_first(error)}") from None
    if resolved.canonical() != text:
        raise IntegrityError("a study that is not in canonical form", code=Code.MALFORMED)
    return resolved


def _first(error: ValidationError) -> str:
    """Return the first fault without the value that caused it."""
    fault = error.errors(include_url=False, include_input=False)[0]
    key = dotted(fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message
