"""``ledger`` and ``audit budget`` as a person calls them: words, one JSON document, exit codes."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from fedgen.cli.app import guarded
from fedgen.cli.ledger import register_audit, register_ledger
from fedgen.crypto.keys import SigningKey
from fedgen.ledger.store import Ledger
from fedgen.privacy.events import Composed, Gaussian, PoissonGaussian, PoissonSkellam

KEY = SigningKey.generate()
H, R, D = "a" * 64, "b" * 64, "c" * 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Ledger.open(tmp_path / "ledger.db", origin="hospital", signing_key=KEY, durable=False) as ledger:
        receipt = ledger.reserve("claims", H, R, 1, 1, PoissonGaussian(0.05, 1.25), 4, check=lambda _: None)
        ledger.settle(receipt, D)
        both = Composed(((Gaussian(8.0), 2),))
        ledger.reserve("claims", H, R, 2, 1, both, 1, check=lambda _: None)
    return tmp_path / "ledger.db"


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Any:
    app = typer.Typer(rich_markup_mode=None)
    register_ledger(app)
    register_audit(app)

    def run(*words: object) -> tuple[int, str, str]:
        arguments = [str(word) for word in words]
        code = guarded(lambda: get_command(app).main(args=arguments, standalone_mode=False), arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_verify_says_whose_ledger_it_is_and_that_it_is_whole(call: Any, path: Path) -> None:
    code, out, err = call("ledger", "verify", path)
    assert (code, err) == (0, "")
    assert all(word in out for word in ("ok", "hospital", KEY.public.hex(), "1 reservations not settled"))
    assert "from the ledger itself" in out


def test_verify_pins_a_key_and_ends_with_6_when_it_is_another(call: Any, path: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(KEY.public.hex())
    (tmp_path / "other").write_text(SigningKey.generate().public.hex())
    code, out, _ = call("ledger", "verify", path, "--key", tmp_path / "key", "--json")
    assert (code, json.loads(out)["ok"]) == (0, True)
    code, out, err = call("ledger", "verify", path, "--key", tmp_path / "other", "--json")
    document = json.loads(out)
    assert (code, document["ok"]) == (6, False)
    assert document["ledgers"][0]["problems"][0].startswith(("another key", "not signed"))
    assert "problems" in err


def test_verify_names_a_flipped_bit(call: Any, path: Path) -> None:
    content = path.read_bytes()
    place = content.index(b'"count":4')
    path.write_bytes(content[: place + 8] + b"1" + content[place + 9 :])
    code, out, _ = call("ledger", "verify", path)
    assert code == 6
    assert "altered: the contents of entry 1 do not match its hash" in out


def test_show_is_a_table_or_one_document(call: Any, path: Path) -> None:
    code, out, _ = call("ledger", "show", path)
    assert code == 0
    assert "4 x poisson-gaussian q 0.05, sigma 1.25" in out
    assert "1 x composed" in out
    assert "not settled" in out
    code, out, _ = call("ledger", "show", path, "--json")
    assert [entry["entry"] for entry in json.loads(out)["entries"]] == [
        "opened",
        "reserved",
        "settled",
        "reserved",
    ]


def test_audit_budget_shows_both_accountants(call: Any, path: Path) -> None:
    code, out, _ = call("audit", "budget", path)
    assert code == 0
    assert "by PLD" in out
    assert "at δ = 1e-05" in out
    code, out, _ = call("audit", "budget", path, "--delta", "1e-6", "--json")
    document = json.loads(out)
    assert document["ok"] is True
    assert {figure["study_hash"] for figure in document["figures"]} == {H, None}
    assert all(0 < figure["pld"] < figure["rdp"] for figure in document["figures"])


def test_audit_budget_of_a_forged_ledger_ends_with_6_and_one_document(call: Any, path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"round":1', b'"round":7', 1))
    code, out, err = call("audit", "budget", path, "--json")
    assert code == 6
    assert json.loads(out)["ok"] is False
    assert "does not verify" in err


@pytest.mark.parametrize("words", [("ledger", "verify"), ("ledger", "show"), ("audit", "budget")])
def test_no_ledger_is_a_configuration_error(call: Any, tmp_path: Path, words: tuple[str, str]) -> None:
    code, _, err = call(*words, tmp_path / "nothing.db")
    assert code == 3
    assert "no ledger here" in err


@pytest.mark.parametrize("words", [("ledger", "verify"), ("ledger", "show"), ("audit", "budget")])
def test_help_names_the_argument(call: Any, words: tuple[str, str]) -> None:
    code, out, _ = call(*words, "--help")
    assert code == 0
    assert "A ledger's file or URL, a run folder, or a folder of ledgers." in out


def test_audit_puts_an_estimate_in_brackets_and_says_what_it_is(call: Any, path: Path) -> None:
    code, out, _ = call("audit", "budget", path)
    assert (code, "in brackets" in out, "(" in out) == (0, False, False)
    step = PoissonSkellam(0.05, 4.0 * 65_600.0**2, 65_600.0, 1.4e6)
    with Ledger.open(path, origin="hospital", signing_key=KEY, durable=False) as ledger:
        ledger.reserve("visits", H, R, 3, 1, step, 1, check=lambda _: None)
    code, out, _ = call("audit", "budget", path)
    assert code == 0
    assert "in brackets: what Gaussian noise of the same variance would cost; an estimate, not a bound" in out
    lines = [line for line in out.splitlines() if "visits" in line]
    assert lines
    assert all(re.search(r"\([0-9.e-]+\)", line) for line in lines)
    assert not any("(" in line for line in out.splitlines() if "claims" in line)
