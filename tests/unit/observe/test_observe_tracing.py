"""Traces: names, hashes and codes; nothing of an error, and nothing at all without the extra."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from fedgen.errors import Code, ConfigError, Refused
from fedgen.observe import span, traces
from fedgen.observe.tracing import check_endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

ENDPOINT = "http://127.0.0.1:4318/v1/traces"
HASH = "ef" * 32


class Keeping(InMemorySpanExporter):
    """Keeps what it has when it is shut down."""

    def shutdown(self) -> None:
        pass


@pytest.fixture
def exporter() -> Iterator[Keeping]:
    return Keeping()


def test_a_round_is_a_span_with_closed_attributes(exporter: Keeping) -> None:
    with traces(ENDPOINT, "site", exporter=exporter), span("round", study=HASH, round=3) as outer:
        with span("train", site="Jane Doe"):
            pass
        outer.note(seconds=1.5, outcome="trained")
    inner, outer_done = exporter.get_finished_spans()
    assert (inner.name, dict(inner.attributes or {})) == ("fedgen.train", {"fedgen.site": "redacted"})
    assert dict(outer_done.attributes or {}) == {
        "fedgen.study": HASH[:12], "fedgen.round": 3, "fedgen.seconds": 1.5, "fedgen.outcome": "trained",
    }  # fmt: skip
    assert inner.parent is not None
    assert inner.parent.span_id == outer_done.context.span_id
    assert dict(outer_done.resource.attributes) == {"service.name": "fedgen-site"}


def test_an_error_leaves_its_code_only(exporter: Keeping) -> None:
    with traces(ENDPOINT, "site", exporter=exporter):
        with pytest.raises(ValueError, match="Jane"), span("train"):
            raise ValueError("Jane Doe")
        with pytest.raises(Refused), span("train"):
            raise Refused("Jane Doe", code=Code.CONSENT)
    first, second = exporter.get_finished_spans()
    assert "Jane" not in first.to_json() + second.to_json()
    assert (first.attributes or {})["fedgen.code"] == "fault"
    assert (second.attributes or {})["fedgen.code"] == "consent"
    assert first.status.status_code == StatusCode.ERROR
    assert first.events == ()


def test_without_traces_a_span_is_nothing() -> None:
    with span("round", round=1) as nothing:
        nothing.note(round=2)


def test_a_step_that_is_none_is_other(exporter: Keeping) -> None:
    with traces(ENDPOINT, "site", exporter=exporter), span("Jane Doe"):  # type: ignore[arg-type]
        pass
    (done,) = exporter.get_finished_spans()
    assert done.name == "fedgen.other"


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://collector.example.org:4318/v1/traces",
        "https://user:secret@collector.example.org/v1/traces",
        "ftp://127.0.0.1/x",
        "file:///srv/x",
        "https://",
        "https://[x",
        "",
    ],
)
def test_an_endpoint_in_clear_or_with_a_password_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_endpoint(endpoint)
    assert "secret" not in str(caught.value)


def test_an_endpoint_with_tls_or_on_loopback_is_taken() -> None:
    check_endpoint("https://collector.example.org:4318/v1/traces")
    check_endpoint(ENDPOINT)


def test_without_the_extra_it_is_named() -> None:
    script = (
        "import sys; sys.modules['opentelemetry.sdk.trace'] = None\n"
        "from fedgen.observe import traces, span\n"
        "from fedgen.errors import MissingExtra\n"
        "try:\n with traces('http://127.0.0.1:1/x', 'site'): pass\n"
        "except MissingExtra as error: print(error)\n"
        "with span('round'): print('fine')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "traces needs an extra (pip install 'fedgen[otel]')\nfine\n"
