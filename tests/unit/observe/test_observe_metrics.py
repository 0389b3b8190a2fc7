"""A closed set of metrics: what may be counted is counted, and what may not has no place to go."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedgen.errors import Code, MissingExtra
from fedgen.events import RoundFinished, SiteRefused, StudyFinished, StudyStarted
from fedgen.messages import Kind
from fedgen.observe import Door, Meters, Outcome, Reason
from fedgen.observe.metrics import FAMILIES

ROOT = Path(__file__).resolve().parents[3]
HASH = "cd" * 32


def _values(meters: Meters) -> dict[tuple[str, tuple[str, ...]], float]:
    families = text_string_to_metric_families(meters.text().decode())
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
        if sample.name.startswith("fedgen_") and not sample.name.endswith(("_created", "_bucket"))
    }


def test_a_site_counts_what_it_answers() -> None:
    meters = Meters("site")
    meters.message(Kind.TRAIN, 0.5, 100, 7)
    meters.message(Kind.JOIN, 0.25, 10, 3, Code.CONSENT)
    meters.turned_away(Door.SIZE)
    meters.round("trained", 2.0)
    meters.standing(HASH, 3, 10)
    meters.epsilon(HASH, 1.5, 4.0)
    values = _values(meters)
    assert values["fedgen_messages_total", ("train",)] == 1
    assert values["fedgen_message_seconds_sum", ("join",)] == 0.25
    assert values["fedgen_message_bytes_total", ("received",)] == 110
    assert values["fedgen_message_bytes_total", ("sent",)] == 10
    assert values["fedgen_refusals_total", ("consent",)] == 1
    assert values["fedgen_turned_away_total", ("size",)] == 1
    assert values["fedgen_rounds_total", ("trained",)] == 1
    assert values["fedgen_study_round", (HASH[:12],)] == 3
    assert values["fedgen_epsilon_spent", (HASH[:12],)] == 1.5
    assert ("fedgen_sites", ("joined",)) not in values


def test_a_coordinator_listens_to_its_run() -> None:
    meters = Meters("coordinator")
    hear = meters.listen(HASH)
    hear(StudyStarted(study="heart", study_hash=HASH, sites=3, first_round=2, rounds=9))
    hear(SiteRefused(round=2, site="hospital-a", code=Code.LATE))
    hear(RoundFinished(round=2, attempt=1, sites=2, roster=3, epsilon=0.75, allowed=2.0, seconds=4.0))
    hear(StudyFinished(outcome="completed", rounds=9))
    values = _values(meters)
    assert values["fedgen_site_refusals_total", ("late", "hospital-a")] == 1
    assert values["fedgen_study_round", (HASH[:12],)] == 2
    assert values["fedgen_study_rounds", (HASH[:12],)] == 9
    assert values["fedgen_sites", ("joined",)] == 3
    assert values["fedgen_sites", ("answered",)] == 2
    assert values["fedgen_epsilon_allowed", (HASH[:12],)] == 2
    assert values["fedgen_round_seconds_sum", ("finished",)] == 4
    assert values["fedgen_studies_total", ("completed",)] == 1


def test_a_study_that_is_not_private_has_no_epsilon() -> None:
    meters = Meters("coordinator")
    meters.listen(HASH)(
        RoundFinished(round=1, attempt=1, sites=2, roster=2, epsilon=None, allowed=None, seconds=1.0)
    )
    assert not [name for name, _ in _values(meters) if "epsilon" in name]


def test_each_reason_for_not_being_ready_is_a_gauge() -> None:
    meters = Meters("site")
    meters.ready([Reason.WARMING])
    values = _values(meters)
    assert values["fedgen_ready", ()] == 0
    assert {
        labels[0] for (name, labels), value in values.items() if name == "fedgen_not_ready" and value
    } == {"warming"}
    meters.ready([])
    assert _values(meters)["fedgen_ready", ()] == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_figure_that_is_none_is_left_out(value: float) -> None:
    meters = Meters("site")
    meters.round("trained", value)
    meters.epsilon(HASH, value, value)
    assert "fedgen_epsilon_spent" not in {name for name, _ in _values(meters)}


def test_a_label_that_does_not_fit_is_redacted() -> None:
    meters = Meters("coordinator")
    meters.standing("Jane Doe", 1, 2)
    meters.refused_by("Jane Doe", Code.LATE)
    meters.round("Jane Doe", 1.0)
    assert b"Jane" not in meters.text()
    assert ("fedgen_site_refusals_total", ("late", "redacted")) in _values(meters)


def test_labels_do_not_grow_without_bound() -> None:
    meters = Meters("coordinator")
    for number in range(2000):
        meters.refused_by(f"site-{number}", Code.LATE)
    labels = [labels for name, labels in _values(meters) if name == "fedgen_site_refusals_total"]
    assert len(labels) == 512
    assert _values(meters)["fedgen_refusals_total", ("late",)] == 2000


def test_nothing_private_has_a_family() -> None:
    forbidden = (
        "loss",
        "rows",
        "person",
        "record",
        "patient",
        "subject",
        "cohort",
        "gradient",
        "accuracy",
        "path",
        "url",
    )
    for family in FAMILIES:
        words = f"{family.name} {' '.join(family.labels)}".lower()
        assert not [word for word in forbidden if word in words], family.name
        assert set(family.labels) <= {
            "role", "version", "reason", "kind", "direction", "code", "door", "outcome", "study", "standing", "site",
        }  # fmt: skip
        assert family.name.endswith("_total") == (family.kind == "counter")


def test_only_declared_families_come_out() -> None:
    for role in ("site", "coordinator"):
        text = Meters(role).text().decode()
        names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE fedgen")}
        declared = {family.name for family in FAMILIES if role in family.roles}
        assert {name.removesuffix("_created") for name in names} <= declared | {
            n.removesuffix("_total") for n in declared
        }


def test_every_family_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "observability.md").read_text(encoding="utf-8")
    for family in FAMILIES:
        assert f"`{family.name}`" in page


def test_without_the_extra_nothing_is_counted_and_asking_for_it_names_it() -> None:
    script = (
        "import sys; sys.modules['prometheus_client'] = None\n"
        "from fedgen.observe import Meters\n"
        "from fedgen.errors import MissingExtra\n"
        "meters = Meters('site'); meters.round('trained', 1.0); meters.ready([])\n"
        "print(meters.present, meters.text())\n"
        "try: Meters('site', required=True)\n"
        "except MissingExtra as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False b''\nmetrics needs an extra (pip install 'fedgen[observe]')\n"
    assert MissingExtra("observe", needed_for="metrics").exit_code == 9


def test_outcomes_of_a_study_are_known() -> None:
    assert {"completed", "budget", "quorum", "interrupted"} <= {str(outcome) for outcome in Outcome}


def test_a_site_has_no_certificate_that_could_seem_to_have_expired() -> None:
    """A gauge without labels is shown as 0 before it is set, which an alarm on certificates takes for the end."""
    site = Meters("site")
    site.certificate_expires(5.0)
    assert "certificate" not in site.text().decode()
    office = Meters("coordinator")
    office.certificate_expires(5.0)
    assert "fedgen_certificate_expires_seconds 5.0" in office.text().decode()
    office.certificate_expires(-5)
    assert "fedgen_certificate_expires_seconds 0.0" in office.text().decode()
