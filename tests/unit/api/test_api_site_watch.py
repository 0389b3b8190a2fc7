"""What an operator sees of a site's daemon: kinds, codes and seconds; an answer is never held up by it."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import Any

import pytest

from fedgen.api import site_daemon
from fedgen.api.site_daemon import Watching
from fedgen.errors import Code, IntegrityError
from fedgen.messages import Kind
from fedgen.observe import Logs, Meters, Probes

HASH = "ab" * 32


class StandIn:
    """Answers what it is told to."""

    def __init__(self, answer: bytes, last: tuple[Code, str] | None = None) -> None:
        self.answer, self.last_refusal = answer, last

    def handle(self, _request: bytes) -> bytes:
        return self.answer


@pytest.fixture
def headers(monkeypatch: pytest.MonkeyPatch) -> None:
    def peek(frame: bytes) -> Any:
        if frame == b"nonsense":
            raise IntegrityError("no", code=Code.MALFORMED)
        return SimpleNamespace(kind=Kind[frame.decode()], study_hash=HASH, round=3)

    monkeypatch.setattr(site_daemon, "peek", peek)


def _watching() -> tuple[Watching, io.StringIO]:
    stream = io.StringIO()
    return Watching(Probes(), Meters("site"), Logs("site", "json", stream)), stream


@pytest.mark.usefixtures("headers")
def test_a_refusal_is_seen_with_its_code_and_the_number_of_its_incident() -> None:
    watching, stream = _watching()
    site = StandIn(b"REFUSAL", (Code.CONSENT, "0" * 16))
    assert watching.of(site)(b"TRAIN") == b"REFUSAL"  # type: ignore[arg-type]
    line = json.loads(stream.getvalue())
    assert (line["level"], line["event"], line["kind"]) == ("warning", "refused", "train")
    assert (line["code"], line["incident"], line["round"]) == ("consent", "0" * 16, 3)
    text = watching.meters.text()
    assert b'fedgen_refusals_total{code="consent"} 1.0' in text
    assert b'fedgen_rounds_total{outcome="refused"} 1.0' in text


@pytest.mark.usefixtures("headers")
def test_a_round_is_seen_and_a_join_is_no_round() -> None:
    watching, stream = _watching()
    assert watching.of(StandIn(b"TRAINED"))(b"TRAIN") == b"TRAINED"  # type: ignore[arg-type]
    assert watching.of(StandIn(b"JOINED"))(b"JOIN") == b"JOINED"  # type: ignore[arg-type]
    (line,) = [json.loads(it) for it in stream.getvalue().splitlines()]
    assert (line["event"], line["study"]) == ("round-trained", HASH[:12])
    text = watching.meters.text()
    assert b'fedgen_rounds_total{outcome="trained"} 1.0' in text
    assert b'fedgen_messages_total{kind="join"} 1.0' in text
    assert b'fedgen_message_bytes_total{direction="received"} 9.0' in text


@pytest.mark.usefixtures("headers")
@pytest.mark.parametrize("request_", [b"nonsense", b"TRAIN"])
def test_what_cannot_be_read_is_answered_all_the_same(request_: bytes) -> None:
    watching, stream = _watching()
    assert watching.of(StandIn(b"nonsense"))(request_) == b"nonsense"  # type: ignore[arg-type]
    assert stream.getvalue() == ""
