"""The site file: what one data holder allows. A study can lower it, never raise it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints, ValidationError, model_validator

from fedgen.config.base import Frozen
from fedgen.config.fields import Count, Number, OpenUnit, Positive, Text, Whole
from fedgen.config.observe import ObserveSpec
from fedgen.config.password import Reference
from fedgen.config.policy import SitePolicySpec
from fedgen.messages import SiteName
from fedgen.schema.yamlsource import Flaw, Lines, explain, load_yaml

if TYPE_CHECKING:
    from pathlib import Path

UserName = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_.-]{0,31}\$?$")]
Account = UserName | Annotated[int, Number, Field(ge=0, lt=2**32 - 1)]


class Ceilings(Frozen):
    """What a site lets be spent on its data; only the ceiling for a year may be left out.

    Attributes:
        epsilon_per_study: Most that one study may spend.
        epsilon_per_year: Most that all studies together may spend on this data set in any 365 days; None leaves
            that to the ceiling for its life.
        epsilon_life: Most that all studies together may spend on this data set, ever.
        delta: The δ at which all of them hold; a study that asks for a larger one is refused.
    """

    epsilon_per_study: Positive
    epsilon_per_year: Positive | None = None
    epsilon_life: Positive
    delta: OpenUnit

    @model_validator(mode="after")
    def _longer_allows_more(self) -> Ceilings:
        if self.epsilon_per_study > self.epsilon_life:
            raise Flaw("one study may not spend more than all of them", key=("epsilon_per_study",))
        if self.epsilon_per_year is None:
            return self
        if self.epsilon_per_study > self.epsilon_per_year:
            raise Flaw("one study may not spend more than a year allows", key=("epsilon_per_study",))
        if self.epsilon_per_year > self.epsilon_life:
            raise Flaw("a year may not allow more than the life of the data", key=("epsilon_per_year",))
        return self


class DeclaredSpec(Frozen):
    """The size that a site tells its coordinator; public from then on, and covered by no ε.

    Attributes:
        rows: How many rows, told to two digits.
        persons: How many persons they are of, told alike; None where the rows do not say whose they are.
    """

    rows: Count
    persons: Count | None = None

    @model_validator(mode="after")
    def _no_more_persons_than_rows(self) -> DeclaredSpec:
        if self.persons is not None and self.persons > self.rows:
            raise Flaw("there cannot be more persons than rows", key=("persons",))
        return self


class SiteSpec(Frozen):
    """One data holder, in a simulation and in a deployment alike.

    Attributes:
        name: Its name in every roster.
        source: Address of its table; may hold a password, and is never shown.
        source_password: Where its password lies, ``env:NAME`` or ``file:PATH``; None where the address or the driver's
            own files have it, or none is needed.
        schema_file: Path of its schema (key ``schema``), or None where the source brings its own.
        consent: Path of its consent log, or None where consent is not the ground.
        min_cohort: With fewer permitted rows it does not train, whatever a study says.
        ceilings: What may be spent.
        policy: What its packs, its consent store and its documents are; None where a consent log is all there is.
        keys: Folder of its private keys.
        ledger: Path or URL of its ledger; a URL may hold a password, and is never shown.
        durable: Whether the ledger is flushed to the disk before each release; only a simulation may say no.
        rehearsal_seed: Makes this site's noise repeatable and NOT PRIVATE, for a rehearsal on made-up rows: it then
            serves studies with this very ``insecure_seed`` and no other. Its owner says so, never a study.
        declared: The size it tells its coordinator; None where that is not said yet.
        socket: Path of its daemon's Unix socket; None is ``run/site.sock`` beside the file.
        relay_users: Names or numbers of the users who may connect to it; none is the daemon's own user only.
        relay_group: Name or number of the group that the socket belongs to, so that its mode shuts everybody else out.
        largest_request: Most bytes of one request; a round brings four for each weight of the model.
        observe: Who may watch its daemon, and how; None is nobody.
    """

    model_config = ConfigDict(populate_by_name=False)

    name: SiteName
    source: Annotated[Text, Field(repr=False)]
    source_password: Reference | None = None
    schema_file: Text | None = Field(default=None, alias="schema")
    consent: Text | None = None
    min_cohort: Count = 10
    policy: SitePolicySpec | None = None
    ceilings: Ceilings
    keys: Text
    ledger: Annotated[Text, Field(repr=False)]
    durable: bool = True
    rehearsal_seed: Whole | None = None
    declared: DeclaredSpec | None = None
    socket: Text | None = None
    relay_users: Annotated[tuple[Account, ...], Field(max_length=16)] = ()
    relay_group: Account | None = None
    largest_request: Annotated[int, Number, Field(ge=2**20, le=2**30)] = 2**26
    observe: ObserveSpec | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the site as JSON values; keys that are None are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def parse_site(data: Any, *, where: str | Path | None = None, lines: Lines | None = None) -> SiteSpec:
    """Return the site in a mapping of plain values; inverse of :meth:`SiteSpec.to_json`.

    Raises:
        ConfigError: With file, line, key and a hint; an unknown key gets the nearest known name.
    """
    try:
        return SiteSpec.model_validate(data)
    except ValidationError as error:
        fault = explain(error, lines or Lines(), where, SiteSpec)
    raise fault


def load_site(path: str | Path) -> SiteSpec:
    """Return the site in a YAML or JSON file.

    Raises:
        ConfigError: As :func:`parse_site`; or the file is missing or not valid.
    """
    data, lines = load_yaml(path)
    return parse_site(data, where=path, lines=lines)
