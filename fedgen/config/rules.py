"""Rules that join two sections of a study, and what a study may promise but this version cannot keep.

Each names the exact key at fault. :class:`fedgen.config.study.Study` applies them, so that a study which
arrives in a message, or is built in Python, is held to the same rules as one read from a file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedgen.errors import ConfigError
from fedgen.privacy.units import Relation, Trust, Unit
from fedgen.schema.lines import dotted
from fedgen.schema.yamlsource import Flaw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fedgen.config.study import Study


def check_rules(study: Study) -> None:
    """Refuse a study that breaks a rule; what this version cannot keep comes first.

    Raises:
        Flaw: The first broken rule; a hint names the other keys that are not in this version.
    """
    missing = list(_not_in_this_version(study))
    if missing:
        others = ", ".join(dotted(flaw.key) for flaw in missing[1:])
        hint = missing[0].hint or ""
        raise Flaw(
            str(missing[0]),
            key=missing[0].key,
            hint=f"{hint}; also not in this version: {others}" if others else hint,
        )
    for rule in (_model, _secagg, _exchange, _quorum, _faults, _stated):
        for flaw in rule(study):
            raise flaw


def _not_in_this_version(study: Study) -> Iterator[Flaw]:
    privacy = study.privacy
    if privacy.relation is not Relation.ADD_OR_REMOVE:
        yield Flaw(
            "Poisson sampling is accounted under add_or_remove only",
            key=("privacy", "relation"),
            hint="use relation: add_or_remove",
        )
    if study.release.gate is not None:
        yield Flaw(
            "the release gate is not in this version, it comes in a later one",
            key=("release", "gate"),
            hint="leave gate out",
        )


def _model(study: Study) -> Iterator[Flaw]:
    try:
        study.model.completed()
    except ConfigError as error:
        yield Flaw(error.what, key=tuple((error.key or "model").split(".")), hint=error.hint)


def _secagg(study: Study) -> Iterator[Flaw]:
    if study.secagg is not None and study.privacy.trust is not Trust.DISTRIBUTED:
        yield Flaw(
            "secagg belongs to trust: distributed",
            key=("secagg",),
            hint=f"leave secagg out with trust: {study.privacy.trust.value}",
        )
    if study.privacy.trust is Trust.DISTRIBUTED:
        from fedgen.secagg.terms import MIN_COHORT  # numpy and keys, for these studies only

        if study.data.sites.count < MIN_COHORT:
            yield Flaw(
                f"a sum of {study.data.sites.count} sites hides nobody: distributed trust needs at least {MIN_COHORT}",
                key=("data", "sites", "count"),
                hint="enrol more sites, or use trust: local",
            )


def _exchange(study: Study) -> Iterator[Flaw]:
    training, whole_sites = study.training, study.privacy.unit is Unit.SITE
    if training.exchange == "gradient" and whole_sites:
        yield Flaw(
            "unit: site bounds the whole update of a site, so it needs exchange: update",
            key=("training", "exchange"),
            hint="use exchange: update, or leave exchange out",
        )
    if training.exchange == "gradient" and training.local_steps > 1:
        yield Flaw(
            "gradients are exchanged after every step, so local_steps must be 1",
            key=("training", "exchange"),
            hint="use exchange: update, or local_steps: 1",
        )
    trust = study.privacy.trust
    if trust is not Trust.LOCAL and study.exchanged == "update" and not whole_sites:
        yield Flaw(
            f"{trust.value} trust bounds and noises gradients, so it needs exchange: gradient and local_steps: 1",
            key=("training", "exchange" if training.exchange == "update" else "local_steps"),
            hint="use trust: local for several local steps",
        )


def _quorum(study: Study) -> Iterator[Flaw]:
    needed, sites = study.training.quorum_of(study.data.sites.count), study.data.sites.count
    if needed > sites:
        yield Flaw(
            f"{needed} sites can never answer, the study has {sites}",
            key=("training", "quorum"),
            hint="write a share such as 0.5, or a smaller number",
        )


def _faults(study: Study) -> Iterator[Flaw]:
    names = set(study.data.sites.names()) if study.simulation.faults else set()
    for position, fault in enumerate(study.simulation.faults):
        if fault.site not in names:
            yield Flaw(
                "no such site in the roster",
                key=("simulation", "faults", position, "site"),
                hint=f"names run from {min(names)} to {max(names)}",
            )
        if fault.round > study.training.rounds:
            yield Flaw(
                f"the study has {study.training.rounds} rounds",
                key=("simulation", "faults", position, "round"),
                hint="choose a round within them",
            )


def _stated(study: Study) -> Iterator[Flaw]:
    names = study.data.sites.names() if study.policy.sites else ()
    for site in study.policy.sites or {}:
        if site not in names:
            yield Flaw(
                "no such site in the roster",
                key=("policy", "sites", site),
                hint=f"names run from {names[0]} to {names[-1]}",
            )
