"""No canary comes out of a log, whatever way it goes in."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import threading
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgen.errors import Code, Refused
from fedgen.messages import Kind
from fedgen.observe import Door, Logs, Outcome, Reason, Said
from fedgen.observe.words import KEYS, REDACTED, fitting

SECRETS = [
    "Jane Doe",
    "jane.doe@example.org",
    "postgresql://fedgen:hunter2@db.example/claims",
    "/srv/hospital/claims-2024.csv",
    "-----BEGIN PRIVATE KEY-----",
    "79927398713",
    "row 17: [71, 'F', 'I21.9']",
    "a\nb",
]
HASH = "ab" * 32


def _lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_what_was_said() -> None:
    stream = io.StringIO()
    log = Logs("site", "json", stream)
    log.say(
        Said.ROUND_TRAINED, study=HASH, run=HASH, round=3, attempt=1, seconds=1.25, outcome=Outcome.TRAINED
    )
    log.warning(Said.REFUSED, kind=Kind.TRAIN, code=Code.CONSENT, incident="0" * 16)
    first, second = _lines(stream)
    assert first.pop("time").endswith("+00:00")
    assert first == {
        "level": "info", "role": "site", "event": "round-trained", "study": HASH[:12], "run": HASH[:12], "round": 3,
        "attempt": 1, "seconds": 1.25, "outcome": "trained",
    }  # fmt: skip
    assert {**second, "time": ""} == {
        "time": "", "level": "warning", "role": "site", "event": "refused", "kind": "train", "code": "consent",
        "incident": "0" * 16,
    }  # fmt: skip


def test_text_for_people_holds_the_same() -> None:
    stream = io.StringIO()
    Logs("coordinator", "text", stream).fault(Said.CHILD_ENDED, child="superlink", status=-9)
    assert stream.getvalue().split(maxsplit=1)[1] == "error child-ended child=superlink status=-9\n"


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("key", sorted(KEYS))
def test_no_key_lets_a_secret_through(key: str, secret: str) -> None:
    for value in (secret, ValueError(secret), [secret], {secret: secret}, secret.encode(), object()):
        shown = json.dumps(fitting({key: value}))
        assert secret not in shown
        assert json.dumps(secret)[1:-1] not in shown


def test_what_does_not_fit_is_said_to_be_redacted_and_what_is_unknown_is_left_out() -> None:
    assert fitting({"site": "Jane Doe", "round": True, "loss": 0.3, "patient": "x", "seconds": float("nan")}) == {
        "site": REDACTED, "round": REDACTED, "seconds": REDACTED,
    }  # fmt: skip
    assert fitting({"epsilon": None}) == {}


def test_an_error_is_its_class_and_a_class_made_at_run_time_is_not() -> None:
    assert fitting({"error": Refused("Jane Doe")}) == {"error": "Refused"}
    assert fitting({"error": OSError(2, "x", "/srv/jane")}) == {"error": "FileNotFoundError"}
    made = type("JaneDoe", (Exception,), {})
    assert fitting({"error": made()}) == {"error": REDACTED}


class _Hostile(BaseException):
    def __str__(self) -> str:
        raise RuntimeError("Jane Doe")

    __repr__ = __str__


def test_a_value_that_fails_at_being_looked_at_is_redacted() -> None:
    class Odd(str):
        __slots__ = ()

        def __str__(self) -> str:
            raise RuntimeError("Jane Doe")

    assert fitting({"error": _Hostile(), "code": Odd("consent")}) == {"error": "_Hostile", "code": REDACTED}


@given(
    st.dictionaries(
        st.sampled_from([*KEYS, "other"]), st.one_of(st.text(), st.floats(), st.integers(), st.none())
    )
)
def test_every_line_is_one_line_of_closed_keys(fields: dict[str, Any]) -> None:
    stream = io.StringIO()
    Logs("site", "json", stream).say(Said.STARTED, **fields)  # type: ignore[typeddict-item]
    (line,) = _lines(stream)
    assert set(line) <= {"time", "level", "role", "event", *KEYS}


def test_what_libraries_say_is_reduced_to_who_and_how_loudly() -> None:
    stream, loud = io.StringIO(), io.StringIO()
    noisy = logging.getLogger("sqlalchemy.engine")
    own = logging.StreamHandler(loud)
    noisy.addHandler(own)
    noisy.propagate = False
    hooks = sys.excepthook, threading.excepthook
    with Logs("site", "json", stream).adopted():
        for secret in SECRETS:
            noisy.error("select %s", secret)
            noisy.info("not even this: %s", secret)
            logging.getLogger(secret).warning(secret)
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                logging.captureWarnings(True)
                warnings.warn(secret, UserWarning, stacklevel=1)
        try:
            int(SECRETS[0])
        except ValueError:
            noisy.exception("with %s", SECRETS[2])
    assert loud.getvalue() == ""
    assert not [secret for secret in SECRETS if secret in stream.getvalue()]
    lines = _lines(stream)
    assert lines[-1]["error"] == "ValueError"
    assert {line["library"] for line in lines} <= {"sqlalchemy", "py", "other"}
    assert len(lines) >= 2 * len(SECRETS) + 1
    # and afterwards everything is as it was
    assert noisy.handlers == [own]
    assert noisy.propagate is False
    assert (sys.excepthook, threading.excepthook) == hooks
    noisy.removeHandler(own)
    noisy.propagate = True


def test_what_a_process_dies_of_is_a_class() -> None:
    script = (
        "import threading\n"
        "from fedgen.observe import Logs\n"
        "block = Logs('site').adopted(); block.__enter__()\n"
        "def die(): raise KeyError('Jane Doe')\n"
        "thread = threading.Thread(target=die); thread.start(); thread.join()\n"
        "raise ValueError('postgresql://fedgen:hunter2@db')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["error"] for line in lines] == ["KeyError", "ValueError"]
    assert "Jane" not in done.stderr
    assert "hunter2" not in done.stderr


def test_a_stream_that_is_closed_stops_nobody() -> None:
    stream = io.StringIO()
    stream.close()
    Logs("site", "json", stream).say(Said.STARTED)


def test_the_vocabulary_is_codes() -> None:
    for word in (*Said, *Reason, *Door, *Outcome):
        assert word.replace("-", "").isalpha()
        assert word == word.lower()
