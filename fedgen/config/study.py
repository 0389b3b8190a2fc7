"""The study file: what is asked of the sites. Frozen, closed, and refused whole if one part is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError, model_validator

from fedgen.config.base import Frozen
from fedgen.config.fields import Slug
from fedgen.config.rules import check_rules
from fedgen.config.secagg import SecaggSpec
from fedgen.config.sections import DataSpec, ModelSpec, PolicySpec, ReleaseSpec
from fedgen.config.training import PrivacySpec, SimulationSpec, TrainingSpec
from fedgen.privacy.units import Unit
from fedgen.schema.yamlsource import Lines, explain

if TYPE_CHECKING:
    from pathlib import Path


class Study(Frozen):
    """A study as a person writes it, with defaults filled in.

    Guarantees:
        - No default decides a privacy matter: unit, trust, δ, and ε or the noise, are required.
        - ``parse_study(study.to_json())`` equals ``study``.

    Rules that join two sections are in :mod:`fedgen.config.rules`; no instance breaks one.

    Attributes:
        study: The study's name: lower-case letters, digits and dashes.
        data: Where rows come from.
        model: Which generator.
        privacy: What may be spent.
        secagg: How sums are taken under ``trust: distributed``, and only there; None means its defaults.
        training: How it is trained.
        policy: What the rows may be used for.
        release: What is sampled at the end.
        simulation: What only a simulation has.
    """

    study: Slug
    data: DataSpec
    model: ModelSpec
    privacy: PrivacySpec
    secagg: SecaggSpec | None = None
    training: TrainingSpec
    policy: PolicySpec = PolicySpec()
    release: ReleaseSpec = ReleaseSpec()
    simulation: SimulationSpec = SimulationSpec()

    @property
    def exchanged(self) -> Literal["gradient", "update"]:
        """What travels, with ``auto`` decided: what a whole site did is one update, however many steps it took."""
        if self.training.exchange == "auto" and self.privacy.unit is Unit.SITE:
            return "update"
        return self.training.exchanged

    def to_json(self) -> dict[str, Any]:
        """Return the study as JSON values; keys that are None are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @model_validator(mode="after")
    def _rules_hold(self) -> Study:
        check_rules(self)
        return self


def parse_study(data: Any, *, where: str | Path | None = None, lines: Lines | None = None) -> Study:
    """Return the study in a mapping of plain values; inverse of :meth:`Study.to_json`.

    Args:
        data: What a file, or a program, says.
        where: The file it came from.
        lines: The lines of its keys.

    Raises:
        ConfigError: With file, line, key and a hint; an unknown key gets the nearest known name.
    """
    try:
        return Study.model_validate(data)
    except ValidationError as error:
        fault = explain(error, lines or Lines(), where, Study)
    raise fault
