"""What may be watched of a coordinator: its processes, its rounds and its certificate; no path and no error's text."""

from __future__ import annotations

import http.client
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedgen.api import server_watch
from fedgen.api.enrolment import server_init
from fedgen.api.server_watch import ServerWatch, watched
from fedgen.config.resolve import read_resolved, resolve
from fedgen.config.study import parse_study
from fedgen.crypto.certificates import issue, read_certificate
from fedgen.enrolment.server_home import ServerHome
from fedgen.observe import Reason
from fedgen.schema.table import parse_schema

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path) -> ServerHome:
    server_init(tmp_path / "home", "localhost:8443")
    return ServerHome(tmp_path / "home")


def _value(watch: ServerWatch, name: str, **labels: str) -> float | None:
    for family in text_string_to_metric_families(watch.meters.text().decode()):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return None


def _line(number: int, **more: object) -> str:
    line = {
        "round": number,
        "attempt": 1,
        "sites": ["site-a", "site-b"],
        "seconds": 2.0,
        "bytes_in": 100,
        "bytes_out": 10,
    }
    return json.dumps({**line, "epsilon": 0.5 * number, **more}) + "\n"


@pytest.fixture
def run(home: ServerHome) -> Path:
    study = resolve(
        parse_study(
            {
                "study": "one",
                "data": {"source": "csv://a.csv", "schema": "schema.yaml", "sites": {"count": 2}},
                "model": {"name": "tabular-vae"},
                "privacy": {"unit": "record", "trust": "local", "epsilon": 3.0, "delta": 1e-5},
                "training": {"rounds": 20, "batch": 8},
            }
        ),
        schema=parse_schema({"columns": [{"name": "a", "type": "boolean"}]}),
        sizes=[50, 50],
    )
    folder = home.runs / "run-1"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(study.to_yaml())
    return folder


def test_it_is_ready_when_everything_runs(home: ServerHome) -> None:
    watch = ServerWatch(home, lambda *_: None, proxy=True)
    assert watch.probes.reasons() == (Reason.STARTING,)
    for name in ("superlink", "superexec", "nginx"):
        watch.hear("started", name)
    assert watch.probes.reasons() == (Reason.STARTING,)  # the SuperLink has not answered
    watch.hear("ready", "superlink")
    assert watch.probes.reasons() == ()
    watch.hear("ended", "nginx")
    assert watch.probes.reasons() == (Reason.PROXY_DOWN,)
    watch.hear("started", "nginx")
    watch.hear("ended", "superlink")
    watch.hear("started", "superlink")
    assert watch.probes.reasons() == (Reason.SUPERLINK_DOWN,)


def test_without_a_proxy_none_is_waited_for(home: ServerHome) -> None:
    watch = ServerWatch(home, None, proxy=False)
    watch.hear("ready", "superlink")
    watch.hear("started", "superexec")
    assert watch.probes.reasons() == ()


def test_rounds_are_counted_from_the_run_folders_once(home: ServerHome, run: Path) -> None:
    metrics = run / "metrics.jsonl"
    metrics.write_text(_line(1) + _line(2))
    watch = ServerWatch(home, None, proxy=True)
    watch.look()
    assert _value(watch, "fedgen_rounds_total", outcome="finished") is None  # over before the start
    with metrics.open("a") as file:
        file.write(_line(3, missing={"site-b": "late"}, sites=["site-a"]) + '{"round": 4, "att')
    watch.look()
    watch.look()
    assert _value(watch, "fedgen_rounds_total", outcome="finished") == 1
    assert _value(watch, "fedgen_site_refusals_total", site="site-b", code="late") == 1
    assert _value(watch, "fedgen_message_bytes_total", direction="received") == 100
    assert _value(watch, "fedgen_sites", standing="answered") == 1
    assert _value(watch, "fedgen_sites", standing="joined") == 2
    study = read_resolved(run / "study.yaml").study_hash[:12]
    assert _value(watch, "fedgen_epsilon_spent", study=study) == 1.5
    assert _value(watch, "fedgen_study_round", study=study) == 3


def test_a_file_that_was_cut_back_and_one_that_is_nonsense_stop_nothing(home: ServerHome, run: Path) -> None:
    metrics = run / "metrics.jsonl"
    watch = ServerWatch(home, None, proxy=True)
    watch.look()
    metrics.write_text(_line(1) + _line(2))
    watch.look()
    metrics.write_text(_line(2, seconds=5.0))
    other = home.runs / "broken"
    other.mkdir()
    (other / "metrics.jsonl").write_text("no json\n[]\n" + _line(1))
    watch.look()
    assert _value(watch, "fedgen_rounds_total", outcome="finished") == 4
    assert (_value(watch, "fedgen_certificate_expires_seconds") or 0) > 300 * 86_400


@pytest.mark.parametrize("proxy", [True, False])
def test_a_certificate_that_sites_see_and_that_expired_is_not_ready(
    home: ServerHome, monkeypatch: pytest.MonkeyPatch, *, proxy: bool
) -> None:
    """What is shown counts, and not what lies on the disk: a proxy may have missed the new one."""
    authority = home.ca.key.read_bytes(), home.ca.certificate.read_bytes()
    past = datetime.now(UTC) - timedelta(days=3)
    old = read_certificate(issue(authority, ["localhost"], days=1, now=past)[1])
    asked = []
    monkeypatch.setattr(server_watch, "shown_at", lambda address: asked.append(address) or old)
    watch = ServerWatch(home, lambda *_: None, proxy=proxy)
    for name in ("superexec", "nginx")[: 1 + proxy]:
        watch.hear("started", name)
    watch.hear("ready", "superlink")
    watch.look()
    watch.look()
    assert asked == ["0.0.0.0:8443"] * proxy  # once a minute, and not each time
    assert watch.probes.reasons() == ((Reason.CERTIFICATE_EXPIRED,) if proxy else ())
    left = _value(watch, "fedgen_certificate_expires_seconds")
    assert left == 0 if proxy else (left or 0) > 300 * 86_400


def test_a_code_that_is_none_is_not_counted(home: ServerHome, run: Path) -> None:
    watch = ServerWatch(home, None, proxy=True)
    watch.look()
    (run / "metrics.jsonl").write_text(_line(1, missing={"site-b": "Jane Doe"}))
    watch.look()
    assert b"Jane" not in watch.meters.text()


def test_logs_for_machines_hold_no_words(home: ServerHome, capsys: pytest.CaptureFixture[str]) -> None:
    watch = ServerWatch(home, None, proxy=True)
    for what, whom in (
        ("started", "superlink"),
        ("admitted", "hospital-a"),
        ("nodes-failed", "/srv/secret/place: postgresql://fedgen:hunter2@db"),
        ("renewed", "certificate"),
        ("reloaded", "nginx"),
        ("renew-failed", "/srv/secret/place: hunter2"),
        ("stopped", "server"),
    ):
        watch.hear(what, whom)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [
        ("child-started", "info"), ("joined", "info"), ("fault", "warning"), ("rotated", "info"),
        ("child-restarted", "info"), ("certificate-expiring", "warning"), ("stopped", "info"),
    ]  # fmt: skip
    assert "hunter2" not in json.dumps(lines)


def test_nobody_watches_unless_the_file_says_so(home: ServerHome) -> None:
    heard = []
    with watched(home, lambda what, whom: heard.append((what, whom)), proxy=True) as hear:
        hear("started", "superlink")
    assert heard == [("started", "superlink")]


def test_the_section_observe_serves_it(home: ServerHome) -> None:
    with home.config.open("a") as file:
        file.write("observe:\n  address: 127.0.0.1:0\n")
    with pytest.MonkeyPatch.context() as patch:
        served = []
        import fedgen.api.server_watch as module

        real = module.start
        patch.setattr(module, "start", lambda *a, **k: served.append(real(*a, **k)) or served[0])
        heard = []
        with watched(home, lambda what, whom: heard.append((what, whom)), proxy=False) as hear:
            for what, whom in (("started", "superexec"), ("ready", "superlink")):
                hear(what, whom)
            connection = http.client.HTTPConnection(served[0].address, timeout=10)
            connection.request("GET", "/ready")
            assert connection.getresponse().status == 200
            connection.close()
        assert heard == [("started", "superexec"), ("ready", "superlink")]
