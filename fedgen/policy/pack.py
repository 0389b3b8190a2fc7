"""A rule pack as data: which rules are on, and the dated facts they read. No expression, no code.

A row of a dated table holds from its ``from`` until before its ``until``; null is open. Every table names its source.
"""

from __future__ import annotations

import json
from datetime import date, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from fedgen.policy.calendar import Period, zone

SCHEMA: Final = "fedgen-pack/1"
NOT_ADVICE: Final = "Engineering input, not legal advice."


def _period(text: str) -> str:
    Period.parse(text)
    return text


def _zone(text: str) -> str:
    zone(text)
    return text


def _zoned(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("an instant carries an offset, such as -08:00")
    return moment


Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:()/ -]{0,127}$")]
Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2,3}$")]
PeriodText = Annotated[str, AfterValidator(_period)]
ZoneName = Annotated[str, AfterValidator(_zone)]
Instant = Annotated[datetime, AfterValidator(_zoned)]


class _Closed(BaseModel):
    """Frozen; unknown keys are refused, and text is not taken for a number."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, validate_default=True)


class AdequacyRow(_Closed):
    """An adequacy decision (GDPR Art. 45(3)).

    Attributes:
        country: ISO code, or EPO.
        from_: First day it holds.
        until: First day it no longer holds; null if it does not end.
        requires: What the importer must meet, such as ``dpf_certified``; null if nothing.
    """

    country: Country
    from_: date = Field(alias="from")
    until: date | None = None
    requires: Word | None = None


class AgeRow(_Closed):
    """The age of consent in one country (GDPR Art. 8(1)) from a day on."""

    from_: date = Field(alias="from")
    age: int = Field(ge=13, le=16)


class RetentionRule(_Closed):
    """How long a record may stay: a period from one of its clocks, by the wall clock of a zone."""

    clock: Literal["collected_at", "last_activity_at"]
    period: PeriodText
    tz: ZoneName


class Purpose(_Closed):
    """What a purpose asks for.

    Attributes:
        min_notice_version: A consent given under an older notice no longer counts; null: none is asked for.
        dpv: Terms of the W3C Data Privacy Vocabulary.
        fields: The columns this purpose needs (Art. 5(1)(c)); null: not stated.
        direct_marketing: An objection then always counts (Art. 21(2)).
        research: An objection then counts under every basis (Art. 21(6)).
    """

    min_notice_version: int | None = Field(default=None, ge=1)
    dpv: tuple[Word, ...] = ()
    fields: tuple[str, ...] | None = None
    direct_marketing: bool = False
    research: bool = False


class GrantChannel(_Closed):
    """A way to consent, and the way back: withdrawing is as easy as giving (Art. 7(3))."""

    channel: Word
    withdrawal: Word | None = None


class Security(_Closed):
    """What a run must show of transport and storage (Art. 32)."""

    tls: bool = True
    mutual_tls: bool = False
    encryption_at_rest: bool = True
    secure_sum: bool = False
    differential_privacy: bool = False


class Source(_Closed):
    """Where the rows of one table come from, and how sure that is."""

    table: Word
    source: str
    confidence: Literal["primary", "secondary", "confirm with counsel"]


class Pack(_Closed):
    """One law, or a part of one, as rules that are on and the facts they read.

    Attributes:
        schema_: The format of this file.
        id: The name by which a study asks for the pack.
        version: Of these facts.
        law: The law a case names.
        title: For people.
        notice: Says that it is not legal advice.
        signed_off_by: Who took responsibility for it; null: nobody has.
        in_force_from: First day on which it decides.
        in_force_to: First day on which it no longer does; null: it does not end.
        tz: Where days of this pack begin.
        rules: Identifiers of the rules that are on.
        eea: Countries a transfer does not leave.
        adequacy: Decisions of Art. 45.
        safeguards: Tools of Art. 46 that this pack accepts.
        child_age: Ages of Art. 8, by country.
        child_age_default: The age where a country has no row (Art. 8(1) names 16).
        purposes: What each purpose asks for.
        spi_permitted_purposes: Uses of sensitive personal information that cannot be limited (11 CCR 7027(m)).
        minors: Under this age, sale needs an opt-in; under the second, a parent's (1798.120(c)).
        admt_applies_from: From when an opt-out of automated decisions counts.
        risk_assessment_from: From when new processing needs a risk assessment.
        content_mark_from: From when generated content needs a machine-readable mark.
        retention_rules: By name.
        grant_channels: Ways to consent.
        security: What a run must show.
        max_store_age: How old the last look at the consent store may be, in seconds.
        max_clock_error: How far the clock may be off, in seconds.
        cohort_floor: Fewer people than this: the site sits out.
        sources: Of the tables.
    """

    schema_: Literal["fedgen-pack/1"] = Field(alias="schema")
    id: Word
    version: Word
    law: Word
    title: str
    notice: str
    signed_off_by: str | None = None
    in_force_from: date
    in_force_to: date | None = None
    tz: ZoneName
    rules: tuple[Word, ...] = Field(min_length=1)
    eea: tuple[Country, ...] = ()
    adequacy: tuple[AdequacyRow, ...] = ()
    safeguards: tuple[Word, ...] = ()
    child_age: dict[Country, tuple[AgeRow, ...]] = Field(default_factory=dict)
    child_age_default: int = Field(default=16, ge=13, le=18)
    purposes: dict[Word, Purpose] = Field(default_factory=dict)
    spi_permitted_purposes: tuple[Word, ...] = ()
    minors: tuple[int, int] = (16, 13)
    admt_applies_from: Instant | None = None
    risk_assessment_from: Instant | None = None
    content_mark_from: Instant | None = None
    retention_rules: dict[Word, RetentionRule] = Field(default_factory=dict)
    grant_channels: tuple[GrantChannel, ...] = ()
    security: Security = Security()
    max_store_age: int = Field(default=900, ge=1)
    max_clock_error: int = Field(default=300, ge=0)
    cohort_floor: int = Field(default=100, ge=1)
    sources: tuple[Source, ...] = ()


def json_schema() -> str:
    """Return the JSON Schema of a pack, as ``policies/pack.schema.json`` holds it."""
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Pack.model_json_schema(by_alias=True),
    }
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
