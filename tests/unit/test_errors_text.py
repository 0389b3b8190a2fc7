"""The one line of an error: whatever a stranger wrote into a file stays on that line and commands no terminal."""

from __future__ import annotations

import json

import pytest

from fedgen.enrolment.documents import Invitation
from fedgen.enrolment.signed import decode
from fedgen.errors import ConfigError, FedgenError

HOSTILE = "a\x1b[2Jb\u202ec\u2028d\x9be\nf\x07"


@pytest.mark.parametrize("part", ["what", "where", "key", "hint"])
def test_no_part_of_an_error_commands_a_terminal(part: str) -> None:
    said = {"what": "is wrong", part: HOSTILE}
    text = str(ConfigError(said.pop("what"), **said))  # type: ignore[arg-type]
    assert text.isprintable()
    assert "b" in text
    assert "d" in text


def test_what_people_write_is_kept() -> None:
    assert str(ConfigError("ε = 2.99 at δ = 1e-05, São Paulo, 東京", where="/srv/é")).endswith("東京")


@pytest.mark.parametrize(
    "document",
    [
        {"format": f"fedgen-{HOSTILE}"},
        {"format": "fedgen-invitation-1", "body": {HOSTILE: 1}, "signature": "0" * 128},
    ],
)
def test_a_hostile_document_commands_no_terminal(document: dict[str, object]) -> None:
    with pytest.raises(FedgenError) as caught:
        decode(json.dumps(document).encode(), Invitation, where="x.json")
    assert str(caught.value).isprintable()
    assert caught.value.what.isprintable()
