"""A closed set of metrics, for Prometheus; what is counted is public, and no label is free text.

Never here: a loss, a metric of training, a count of rows or persons, anything about one record. Seconds and bytes of
messages are what the network shows anyway; a site's own figures are for the site's own operator.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, Literal

from fedgen.errors import Code, MissingExtra
from fedgen.events import Event, RoundFinished, SiteRefused, StudyFinished, StudyStarted
from fedgen.observe.words import REDACTED, Door, Outcome, Reason, Role, fitting

if TYPE_CHECKING:
    from collections.abc import Iterable
    from enum import Enum

    from fedgen.events import Listener

_SECONDS: Final = (0.05, 0.25, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0)
_MANY: Final = 512


@dataclass(frozen=True, slots=True)
class Family:
    """A metric that may exist.

    Attributes:
        name: As Prometheus shows it; a counter's has ``_total`` at its end.
        kind: What it is.
        about: One line for a person.
        labels: Names of its labels; each label's values are a closed set, a hash or a name of the public roster.
        roles: Who has it.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    about: str
    labels: tuple[str, ...] = ()
    roles: tuple[Role, ...] = ("site", "coordinator")


FAMILIES: Final = (
    Family("fedgen_build_info", "gauge", "Always 1; the version that runs.", ("role", "version")),
    Family("fedgen_ready", "gauge", "1 when the daemon may be asked to work, else 0."),
    Family("fedgen_not_ready", "gauge", "1 for each reason that holds.", ("reason",)),
    Family("fedgen_messages_total", "counter", "Messages that were answered.", ("kind",)),
    Family("fedgen_message_seconds", "histogram", "Seconds from a message to its answer.", ("kind",)),
    Family("fedgen_message_bytes_total", "counter", "Bytes of messages.", ("direction",)),
    Family("fedgen_refusals_total", "counter", "Refusals by code.", ("code",)),
    Family("fedgen_turned_away_total", "counter", "Turned away before it was read.", ("door",)),
    Family("fedgen_rounds_total", "counter", "Rounds by how they ended.", ("outcome",)),
    Family("fedgen_round_seconds", "histogram", "Seconds of a round.", ("outcome",)),
    Family("fedgen_study_round", "gauge", "The round a study has reached.", ("study",)),
    Family("fedgen_study_rounds", "gauge", "The rounds a study has in all.", ("study",)),
    Family("fedgen_epsilon_spent", "gauge", "Upper bound of the ε spent so far.", ("study",)),
    Family("fedgen_epsilon_allowed", "gauge", "The ε that may be spent.", ("study",)),
    Family("fedgen_certificate_expires_seconds", "gauge", "Seconds until it expires.", (), ("coordinator",)),
    Family("fedgen_studies_total", "counter", "Studies by how they ended.", ("outcome",), ("coordinator",)),
    Family("fedgen_sites", "gauge", "Sites by where they stand.", ("standing",), ("coordinator",)),
    Family("fedgen_site_refusals_total", "counter", "Refusals by site and code.", ("site", "code"), ("coordinator",)),
)  # fmt: skip


class Meters:
    """The metrics of one daemon.

    Guarantees:
        - Only families of :data:`FAMILIES` that the role has exist; a label that does not fit is ``redacted``.
        - At most 512 sets of labels for each family; what is beyond is not counted.
        - A figure that is not finite, or negative, is left out; no method raises for a value.
        - Without the extra ``observe`` every method does nothing.

    Args:
        role: Whose metrics.
        wanted: Whether there are to be any; if not, every method does nothing.
        required: Whether the absence of the extra is an error.

    Raises:
        MissingExtra: ``required``, and the extra ``observe`` is not installed.
    """

    def __init__(self, role: Role, *, wanted: bool = True, required: bool = False) -> None:
        self.role: Role = role
        self._registry: Any = None
        self._families: dict[str, Any] = {}
        self._seen: dict[str, set[tuple[str, ...]]] = {}
        self._lock = threading.Lock()
        if not wanted:
            return
        try:
            import prometheus_client
        except ImportError:
            if required:
                raise MissingExtra("observe", needed_for="metrics") from None
            return
        self._registry = prometheus_client.CollectorRegistry()
        prometheus_client.ProcessCollector(registry=self._registry)
        for family in FAMILIES:
            if role in family.roles:
                self._families[family.name] = _made(prometheus_client, family, self._registry)
        self._put("fedgen_build_info", 1, role, _shown("version", metadata.version("fedgen")))

    @property
    def present(self) -> bool:
        """Whether there is anything to show."""
        return self._registry is not None

    def message(self, kind: Enum, seconds: float, received: int, sent: int, code: Code | None = None) -> None:
        """Count a message that was answered, and its refusal if that was the answer."""
        shown = _shown("kind", kind)
        self._put("fedgen_messages_total", 1, shown)
        self._put("fedgen_message_seconds", seconds, shown)
        self.traffic(received=received, sent=sent)
        if code is not None:
            self._put("fedgen_refusals_total", 1, _shown("code", code))

    def traffic(self, *, received: int, sent: int) -> None:
        """Count bytes of messages."""
        self._put("fedgen_message_bytes_total", received, "received")
        self._put("fedgen_message_bytes_total", sent, "sent")

    def turned_away(self, door: Door) -> None:
        """Count what was not let in."""
        self._put("fedgen_turned_away_total", 1, _shown("door", door))

    def round(self, outcome: Outcome | str, seconds: float) -> None:
        """Count a round."""
        self._put("fedgen_rounds_total", 1, _shown("outcome", outcome))
        self._put("fedgen_round_seconds", seconds, _shown("outcome", outcome))

    def standing(self, study: str, round: int, rounds: int) -> None:  # noqa: A002 - the field's word
        """Say how far a study is."""
        self._put("fedgen_study_round", round, _shown("study", study))
        self._put("fedgen_study_rounds", rounds, _shown("study", study))

    def epsilon(self, study: str, spent: float | None, allowed: float | None) -> None:
        """Say what was spent, as an upper bound; None where a study is not private."""
        if spent is not None:
            self._put("fedgen_epsilon_spent", spent, _shown("study", study))
        if allowed is not None:
            self._put("fedgen_epsilon_allowed", allowed, _shown("study", study))

    def sites(
        self, *, enrolled: int | None = None, joined: int | None = None, answered: int | None = None
    ) -> None:
        """Say how many sites there are; these are figures of the public roster."""
        told = {"enrolled": enrolled, "joined": joined, "answered": answered}
        for standing, count in told.items():
            if count is not None:
                self._put("fedgen_sites", count, standing)

    def refused_by(self, site: str, code: Code) -> None:
        """Count a refusal of a site of the roster."""
        self._put("fedgen_site_refusals_total", 1, _shown("site", site), _shown("code", code))
        self._put("fedgen_refusals_total", 1, _shown("code", code))

    def certificate_expires(self, seconds: float) -> None:
        """Say how long the certificate is valid; 0 when it no longer is."""
        self._put("fedgen_certificate_expires_seconds", max(0.0, seconds))

    def ready(self, reasons: Iterable[Reason]) -> None:
        """Say whether the daemon is ready, and if not, why."""
        held = set(reasons)
        self._put("fedgen_ready", 0 if held else 1)
        for reason in Reason:
            self._put("fedgen_not_ready", 1 if reason in held else 0, str(reason))

    def listen(self, study: str) -> Listener:
        """Return a listener of a coordinator's run that keeps these metrics; ``study`` is its full hash."""
        rounds = 0

        def hear(event: Event) -> None:
            nonlocal rounds
            if isinstance(event, StudyStarted):
                rounds = event.rounds
                self.sites(joined=event.sites)
                self.standing(study, event.first_round - 1, rounds)
            elif isinstance(event, SiteRefused):
                self.refused_by(event.site, event.code)
            elif isinstance(event, RoundFinished):
                self.round(Outcome.FINISHED, event.seconds)
                self.standing(study, event.round, rounds)
                self.epsilon(study, event.epsilon, event.allowed)
                self.sites(answered=event.sites, joined=event.roster)
            elif isinstance(event, StudyFinished):
                self._put("fedgen_studies_total", 1, _shown("outcome", event.outcome))

        return hear

    def text(self) -> bytes:
        """Return all of it in Prometheus's text format; empty without the extra."""
        if self._registry is None:
            return b""
        import prometheus_client

        return bytes(prometheus_client.generate_latest(self._registry))

    def _put(self, name: str, value: float, *labels: str) -> None:
        family = self._families.get(name)
        if family is None or not math.isfinite(value) or value < 0:
            return
        with self._lock:
            seen = self._seen.setdefault(name, set())
            if labels not in seen and len(seen) >= _MANY:
                return
            seen.add(labels)
        series = family.labels(*labels) if labels else family
        getattr(series, _VERBS[name])(value)


_VERB: Final = {"counter": "inc", "gauge": "set", "histogram": "observe"}
_VERBS: Final = {family.name: _VERB[family.kind] for family in FAMILIES}


def _made(library: Any, family: Family, registry: Any) -> Any:
    if family.kind == "counter":
        return library.Counter(family.name, family.about, family.labels, registry=registry)
    if family.kind == "gauge":
        return library.Gauge(family.name, family.about, family.labels, registry=registry)
    return library.Histogram(family.name, family.about, family.labels, registry=registry, buckets=_SECONDS)


def _shown(key: str, value: Any) -> str:
    return str(fitting({key: value}).get(key, REDACTED))
