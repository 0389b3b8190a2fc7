"""What a person can get wrong: one line, the right exit code, no traceback, no value of a row, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support.studies import HEADER, SCHEMA, people, write_rows, write_study

import fedgen as package
from fedgen._files import TEMPORARY
from fedgen.errors import ConfigError
from fedgen.runs import atomic, lines

if TYPE_CHECKING:
    from collections.abc import Callable

CANARY = "zq-canary-7731"


def _refused(said: Any, code: int, *parts: str) -> str:
    """Check that a call failed in one line that holds every part, and return it."""
    assert said.code == code, said.err
    failures = [line for line in said.err.splitlines() if line.startswith("fedgen: ")]
    assert len(failures) == 1, said.err
    assert "Traceback" not in said.err
    assert CANARY not in said.err
    for part in parts:
        assert part in failures[0]
    return failures[0]


def _simulate(fedgen: Callable[..., Any], study: Path, *more: object) -> Any:
    return fedgen("simulate", study, "--out", study.parent / "run", *more)


def _rows_with(place: int, value: str) -> list[tuple[str, ...]]:
    rows = [list(row) for row in people()]
    rows[41][place] = value
    return [tuple(row) for row in rows]


@pytest.mark.parametrize(
    ("rows", "parts"),
    [
        pytest.param(_rows_with(2, CANARY), ("ward", "42"), id="category-not-in-the-schema"),
        pytest.param(_rows_with(1, CANARY), ("age", "42"), id="text-in-a-number"),
        pytest.param(_rows_with(3, "NaN"), ("height", "42"), id="NaN"),
        pytest.param(_rows_with(3, "inf"), ("height", "42"), id="infinity"),
        pytest.param(_rows_with(3, ""), ("height", "42"), id="missing-value"),
        pytest.param([], ("rows.csv",), id="empty-table"),
    ],
)
def test_a_row_that_does_not_fit_is_named_by_column_and_number(
    tmp_path: Path, fedgen: Callable[..., Any], rows: list[tuple[str, ...]], parts: tuple[str, ...]
) -> None:
    study = write_study(tmp_path, rows=rows)
    _refused(_simulate(fedgen, study), 3, *parts)
    assert not (tmp_path / "run").exists()
    write_rows(tmp_path / "rows.csv", people())  # mended: a second try is not in the way of the first
    assert _simulate(fedgen, study).code == 0


@pytest.mark.parametrize(
    ("header", "part"),
    [
        pytest.param(("who", "age", "ward", "height", "height"), "height", id="duplicate-header"),
        pytest.param(("who", "age", "region", "height", "sick"), "ward", id="unknown-column"),
    ],
)
def test_a_header_that_does_not_fit_names_the_column(
    tmp_path: Path, fedgen: Callable[..., Any], header: tuple[str, ...], part: str
) -> None:
    study = write_study(tmp_path)
    write_rows(tmp_path / "rows.csv", people(), header)
    _refused(_simulate(fedgen, study), 3, part)
    assert not (tmp_path / "run").exists()


def test_a_missing_table_schema_or_study_is_named(tmp_path: Path, fedgen: Callable[..., Any]) -> None:
    study = write_study(tmp_path)
    (tmp_path / "rows.csv").unlink()
    _refused(_simulate(fedgen, study), 3, "rows.csv")
    (tmp_path / "schema.yaml").unlink()
    _refused(_simulate(fedgen, study), 3, "schema.yaml")
    study.unlink()
    _refused(_simulate(fedgen, study), 3, "study.yaml")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("privacy", "key"),
    [
        pytest.param({"epsilon": 0}, "privacy.epsilon", id="zero"),
        pytest.param({"epsilon": -1.0}, "privacy.epsilon", id="negative"),
        pytest.param({"epsilon": None}, "privacy", id="missing"),
        pytest.param({"noise_multiplier": 1.0}, "privacy.noise_multiplier", id="together-with-the-noise"),
        pytest.param({"delta": 0}, "privacy.delta", id="delta-zero"),
        pytest.param({"delta": None}, "privacy.delta", id="delta-missing"),
        pytest.param({"trust": None}, "privacy.trust", id="trust-missing"),
        pytest.param({"trust": "everybody"}, "privacy.trust", id="trust-unknown"),
    ],
)
def test_a_privacy_section_that_decides_nothing_is_refused_at_its_line(
    tmp_path: Path, fedgen: Callable[..., Any], privacy: dict[str, Any], key: str
) -> None:
    study = write_study(tmp_path, privacy=privacy)
    said = _simulate(fedgen, study, "--json")
    _refused(said, 3, "study.yaml", key)
    assert said.document["key"] == key
    assert said.document["line"] > 1


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        pytest.param({"privacy": {"trust": "local"}}, "secagg", id="another-trust"),
        pytest.param({"data": {"sites": {"count": 2}}}, "data.sites.count", id="two-sites"),
        pytest.param({"secagg": {"dropouts": 2}}, "secagg.dropouts", id="too-many-dropouts"),
        pytest.param({"secagg": {"threshold": 2, "colluders": 1}}, "secagg.threshold", id="threshold"),
        pytest.param(
            {
                "secagg": {"ring": 32},
                "privacy": {"trust": "distributed", "epsilon": None, "noise_multiplier": 5e3},
            },
            "secagg.ring",
            id="overflow",
        ),
        pytest.param({"training": {"local_steps": 2}}, "training.local_steps", id="local-steps"),
    ],
)
def test_a_sum_that_no_round_could_take_is_refused_at_its_line(
    tmp_path: Path, fedgen: Callable[..., Any], sections: dict[str, Any], key: str
) -> None:
    study = write_study(tmp_path, **{"privacy": {"trust": "distributed"}, "secagg": {}, **sections})
    said = _simulate(fedgen, study, "--json")
    _refused(said, 3, "study.yaml", key)
    assert (said.document["key"], said.document["line"] > 1) == (key, True)
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "run").exists()


def test_an_unknown_key_gets_the_nearest_known_name(tmp_path: Path, fedgen: Callable[..., Any]) -> None:
    study = write_study(tmp_path, training={"sample_rat": 0.2, "sample_rate": None})
    said = _simulate(fedgen, study, "--json")
    _refused(said, 3, "study.yaml", "training.sample_rat", "sample_rate")
    text = study.read_text().splitlines()
    assert "sample_rat" in text[said.document["line"] - 1]


def test_more_sites_than_rows_is_refused(tmp_path: Path, fedgen: Callable[..., Any]) -> None:
    study = write_study(tmp_path, rows=people(6), data={"sites": {"count": 9}})
    _refused(_simulate(fedgen, study), 3, "data.sites.count")
    assert not (tmp_path / "run").exists()


def test_a_site_below_the_minimum_cohort_is_warned_of_and_sits_out(
    tmp_path: Path, fedgen: Callable[..., Any]
) -> None:
    study = write_study(tmp_path, rows=people(20), policy={"min_cohort": 50})
    said = fedgen("check", study)
    assert said.code == 0
    assert "min_cohort" in said.err
    _refused(_simulate(fedgen, study), 8, "too few sites")


def test_a_format_the_schema_has_no_rows_for_is_refused_before_training(
    tmp_path: Path, fedgen: Callable[..., Any]
) -> None:
    study = write_study(tmp_path, release={"formats": ["npz"]})
    _refused(_simulate(fedgen, study), 3, "release.formats")
    assert not (tmp_path / "run").exists()


def test_an_override_that_is_wrong_is_named_as_one(tmp_path: Path, fedgen: Callable[..., Any]) -> None:
    study = write_study(tmp_path)
    _refused(_simulate(fedgen, study, "--set", "privacy.epsilon=-3"), 3, "--set", "privacy.epsilon")
    _refused(_simulate(fedgen, study, "--set", "nonsense"), 3)
    assert not (tmp_path / "run").exists()


def test_an_unknown_backend_is_a_usage_error(tmp_path: Path, fedgen: Callable[..., Any]) -> None:
    _refused(_simulate(fedgen, write_study(tmp_path), "--backend", "cloud"), 2, "cloud")
    assert not (tmp_path / "run").exists()


def test_a_place_under_a_file_cannot_be_written(tmp_path: Path, fedgen: Callable[..., Any]) -> None:
    study = write_study(tmp_path)
    (tmp_path / "file").write_text("not a folder")
    _refused(
        fedgen("simulate", study, "--out", tmp_path / "file" / "run"), 3, "in the way", "name another place"
    )
    assert (tmp_path / "file").read_text() == "not a folder"


def test_a_folder_without_permission_cannot_be_written(
    tmp_path: Path, fedgen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path)
    make = Path.mkdir

    def deny(self: Path, *arguments: Any, **named: Any) -> None:
        if self.name == "run":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        make(self, *arguments, **named)

    monkeypatch.setattr(Path, "mkdir", deny)
    _refused(_simulate(fedgen, study), 3, "cannot be written", "--out")


def test_a_full_disk_ends_the_run_in_one_line_and_the_run_resumes(
    tmp_path: Path, fedgen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path)
    write = lines._write_all
    written: list[int] = []

    def fill(descriptor: int, line: bytes, offset: int) -> None:
        written.append(len(line))
        if len(written) > 3:  # the first attempt, its round, the second attempt; then the disk is full
            os.pwrite(descriptor, line[: len(line) // 2], offset)
            raise OSError(errno.ENOSPC, "No space left on device")
        write(descriptor, line, offset)

    with monkeypatch.context() as patch:
        patch.setattr(lines, "_write_all", fill)
        _refused(_simulate(fedgen, study), 3, "no room left")
    said = _simulate(fedgen, study, "--resume", "--json")
    assert said.code == 0
    assert said.document["outcome"] == "completed"
    lines_ = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines_] == [1, 2, 3]


def test_a_disk_that_fills_up_while_results_are_written_loses_no_round(
    tmp_path: Path, fedgen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path)
    put = atomic.write_text

    def fill(path: Path, text: str) -> None:
        if path.name == "report.html":
            raise atomic.storage_error(OSError(errno.ENOSPC, "No space left on device"), path)
        put(path, text)

    with monkeypatch.context() as patch:
        patch.setattr("fedgen.api.results.write_text", fill)
        _refused(_simulate(fedgen, study), 3, "no room left", "report.html")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["outcome"] == "failed"
    assert not list((tmp_path / "run").rglob(f"*{TEMPORARY}*"))
    said = _simulate(fedgen, study, "--resume", "--json")
    assert said.code == 0
    assert said.document["rounds_done"] == 3


def test_a_full_disk_at_the_sites_is_a_code_and_a_lost_quorum(
    tmp_path: Path, fedgen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path)

    def fill(*_arguments: object, **_named: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", CANARY)

    with monkeypatch.context() as patch:
        patch.setattr("fedgen.site.account.Account.reserve", fill)
        _refused(_simulate(fedgen, study), 8)
    assert package.load_run(tmp_path / "run").record.sites[0].refusals == {"storage": 1}
    assert CANARY not in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert _simulate(fedgen, study, "--resume").code == 0


def test_verbs_on_what_is_not_a_run_folder_say_so(tmp_path: Path, fedgen: Callable[..., Any]) -> None:
    for words in (
        ("sample", tmp_path, "--rows", 3, "--out", tmp_path / "x.csv"),
        ("report", tmp_path),
    ):
        _refused(fedgen(*words), 3, "not a run folder")
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_never_finished_a_round_has_nothing_to_sample(
    tmp_path: Path, fedgen: Callable[..., Any]
) -> None:
    study = write_study(tmp_path, policy={"min_cohort": 1000})
    assert _simulate(fedgen, study).code == 8
    said = fedgen("sample", tmp_path / "run", "--rows", 3, "--out", tmp_path / "x.csv")
    _refused(said, 3, "no round was finished")
    assert not (tmp_path / "x.csv").exists()
    assert fedgen("report", tmp_path / "run").code == 0


def test_a_torn_checkpoint_is_an_integrity_error_or_the_one_before_is_used(
    tmp_path: Path, fedgen: Callable[..., Any]
) -> None:
    study = write_study(tmp_path)
    assert _simulate(fedgen, study).code == 0
    older, newest = sorted((tmp_path / "run" / "checkpoints").glob("*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:100])
    assert fedgen("sample", tmp_path / "run", "--rows", 3, "--out", tmp_path / "x.csv").code == 0
    older.write_bytes(b"")
    _refused(fedgen("sample", tmp_path / "run", "--rows", 3, "--out", tmp_path / "y.csv"), 6)
    assert not (tmp_path / "y.csv").exists()


def test_a_run_folder_rolled_back_behind_its_sites_is_refused(
    tmp_path: Path, fedgen: Callable[..., Any]
) -> None:
    study = write_study(tmp_path)
    assert _simulate(fedgen, study).code == 0
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.unlink()
    (tmp_path / "run" / "run.json").unlink()
    _refused(_simulate(fedgen, study, "--resume"), 6, "round 3")


def test_a_ledger_that_was_edited_stops_its_site(tmp_path: Path, fedgen: Callable[..., Any]) -> None:
    fault = {"site": "site-02", "round": 2, "kind": "drop"}
    study = write_study(tmp_path, training={"quorum": 3}, simulation={"faults": [fault]})
    assert _simulate(fedgen, study).code == 8
    ledger = tmp_path / "run" / "sites" / "site-01" / "ledger.db"
    ledger.write_bytes(b"not a ledger" * 400)
    said = _simulate(fedgen, study, "--resume")
    assert said.code in {6, 8}
    assert "Traceback" not in said.err


def test_evaluate_names_what_is_wrong(tmp_path: Path, fedgen: Callable[..., Any]) -> None:
    write_study(tmp_path)
    bad = [(*row[:2], CANARY, *row[3:]) for row in people(30)]
    write_rows(tmp_path / "bad.csv", bad)
    said = fedgen(
        "evaluate",
        "--real",
        tmp_path / "rows.csv",
        "--synthetic",
        tmp_path / "bad.csv",
        "--schema",
        tmp_path / "schema.yaml",
    )
    _refused(said, 3, "ward", "bad.csv")


def test_a_study_file_that_is_not_yaml_is_refused_in_one_line(
    tmp_path: Path, fedgen: Callable[..., Any]
) -> None:
    for text in ("study: [", "\x00", "- a\n- b\n", "study: !!python/object/apply:os.system [id]\n"):
        study = tmp_path / "study.yaml"
        study.write_text(text)
        _refused(fedgen("check", study), 3, "study.yaml")


def test_a_schema_file_with_an_unknown_key_names_file_line_and_key(
    tmp_path: Path, fedgen: Callable[..., Any]
) -> None:
    study = write_study(tmp_path, schema={**SCHEMA, "lable": "sick"})
    said = fedgen("check", study, "--json")
    _refused(said, 3, "schema.yaml", "lable", "label")
    assert "lable" in (tmp_path / "schema.yaml").read_text().splitlines()[said.document["line"] - 1]


@pytest.mark.slow
def test_a_two_gigabyte_csv_is_read_in_bounded_memory(tmp_path: Path) -> None:
    import subprocess
    import sys

    path = tmp_path / "big.csv"
    row = ("p000000001,7,north,1.25,true" + "\n").encode()
    block = row * (1 << 16)
    with path.open("wb") as file:
        file.write((",".join(HEADER) + "\n").encode())
        while file.tell() < 2_000_000_000:
            file.write(block)
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(SCHEMA, sort_keys=False))
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from fedgen.data.encoded import read_encoded; from fedgen.data.sources import open_source\n"
        "from fedgen.schema.table import load_schema\n"
        "schema = load_schema(Path(sys.argv[2])).model_copy(update={'subject': None})\n"
        "table = read_encoded(open_source(sys.argv[1], base=Path.cwd()), schema)\n"
        "print(len(table.codes), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, f"csv://{path}", str(tmp_path / "schema.yaml")],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    rows, peak_mib = map(int, done.stdout.split())
    assert rows == (path.stat().st_size - len(",".join(HEADER)) - 1) // len(row)
    assert peak_mib < 1000  # half of the file; rows as codes lie on disk
    assert stat.S_ISREG(path.stat().st_mode)
    path.unlink()


def test_check_raises_what_simulate_would_raise_before_its_first_round(
    tmp_path: Path, fedgen: Callable[..., Any]
) -> None:
    study = write_study(tmp_path, rows=_rows_with(2, CANARY))
    with pytest.raises(ConfigError) as checked:
        package.check(study)
    with pytest.raises(ConfigError) as simulated:
        package.simulate(study, out=tmp_path / "run")
    assert str(checked.value) == str(simulated.value)
