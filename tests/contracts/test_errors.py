"""The numbers scripts rely on, and what an error may show."""

from __future__ import annotations

import pytest

from fedgen import errors
from fedgen.cli.app import guarded

PROMISED = {
    errors.FedgenError: 1,
    errors.UsageError: 2,
    errors.ConfigError: 3,
    errors.DataError: 3,
    errors.Refused: 4,
    errors.BudgetExhausted: 5,
    errors.IntegrityError: 6,
    errors.ReleaseRefused: 7,
    errors.QuorumLost: 8,
    errors.Interrupted: 130,
}


def test_every_error_of_the_tree_has_its_promised_code() -> None:
    tree = {
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.FedgenError)
    }
    assert tree == {*PROMISED, errors.MissingExtra}
    for kind, code in PROMISED.items():
        assert kind("what").exit_code == code
    assert errors.MissingExtra("sim", needed_for="x").exit_code == 9


def test_the_drawing_in_the_docstring_names_every_error_with_its_code() -> None:
    drawing = errors.__doc__ or ""
    for kind, code in {**PROMISED, errors.MissingExtra: 9}.items():
        line = next(line for line in drawing.splitlines() if kind.__name__ in line)
        assert f" {code} " in line


@pytest.mark.parametrize(("kind", "code"), list(PROMISED.items()))
def test_the_command_line_ends_with_the_code_and_one_line(
    kind: type[errors.FedgenError], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise kind("it went\nwrong", where="a\nb.yaml", hint="mend it")

    assert guarded(fail, []) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "it went wrong" in said.err
    assert "mend it" in said.err


def test_a_missing_extra_names_the_exact_command(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise errors.MissingExtra("sim", needed_for="--backend ray")

    assert guarded(fail, []) == 9
    assert "pip install 'fedgen[sim]'" in capsys.readouterr().err


def test_a_defect_is_one_line_that_says_where_to_go_and_shows_no_text_of_the_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise ValueError("a value of a row: 4711")

    assert guarded(fail, []) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "4711" not in said
    assert "fedgen doctor" in said
    assert "--debug" in said


def test_debug_shows_the_traceback() -> None:
    def fail() -> None:
        raise ValueError("shown")

    with pytest.raises(ValueError, match="shown"):
        guarded(fail, ["--debug"])


def test_the_environment_asks_for_the_traceback_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ValueError("shown")

    monkeypatch.setenv("FEDGEN_DEBUG", "1")
    with pytest.raises(ValueError, match="shown"):
        guarded(fail, [])


def test_an_interruption_ends_with_130(capsys: pytest.CaptureFixture[str]) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    assert guarded(stop, []) == 130
    assert "--resume" in capsys.readouterr().err


def test_a_refusal_by_the_system_is_a_configuration_error_with_its_path(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise PermissionError(13, "Permission denied", "/srv/x")

    assert guarded(fail, []) == 3
    assert "/srv/x: permission denied" in capsys.readouterr().err
