"""What one site allows, whatever a study asks: made from its site file, or by a simulation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SiteRules:
    """A site's own rules. A study can lower what they allow, never raise it.

    Attributes:
        name: The site's name in every roster.
        min_cohort: With fewer permitted rows the site sits a round out.
        consent_required: Whether a missing consent log means no.
        epsilon_per_study: Most that one study may spend; None only in a simulation.
        epsilon_per_year: Most that all studies together may spend on this data in any 365 days, or None.
        epsilon_life: Most that all studies together may spend on this data; None only in a simulation.
        delta: The δ at which all of them hold; None only in a simulation.
        simulated: Whether this site is one of a simulation; never in a deployment.
        rehearsal_seed: The ``insecure_seed`` that this site's own noise is made from, for rehearsals on made-up rows:
            then it serves studies with this very seed, which are not private, and no other. None is real noise.
        schema_digest: The only schema the site serves, or None for any.
        purposes: The purposes the site serves, or None for any.
    """

    name: str
    min_cohort: int
    consent_required: bool
    epsilon_per_study: float | None = None
    epsilon_per_year: float | None = None
    epsilon_life: float | None = None
    delta: float | None = None
    simulated: bool = False
    rehearsal_seed: int | None = None
    schema_digest: str | None = None
    purposes: frozenset[str] | None = None
