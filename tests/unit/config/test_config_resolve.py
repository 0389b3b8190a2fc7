"""The resolved study: one text, one hash, and nothing accepted that disagrees with itself."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from fedgen.config.resolve import ResolvedStudy, read_resolved, resolve
from fedgen.config.study import parse_study
from fedgen.crypto.digest import sha256_hex
from fedgen.errors import Code, ConfigError, IntegrityError
from fedgen.messages import canonical
from fedgen.schema.table import parse_schema

if TYPE_CHECKING:
    from pathlib import Path

STUDY: dict[str, Any] = {
    "study": "one",
    "data": {"source": "csv://claims.csv", "schema": "schema.yaml", "sites": {"count": 3}},
    "model": {"name": "tabular-vae"},
    "privacy": {"unit": "record", "trust": "local", "epsilon": 3.0, "delta": 1e-5},
    "training": {"rounds": 20, "batch": 60},
}
TABLE = {
    "columns": [
        {"name": "age", "type": "integer", "min": 0, "max": 110},
        {"name": "plan", "type": "categorical", "categories": ["a", "1e5", "no", "ü"]},
        {"name": "seen", "type": "date", "min": "2020-01-01", "max": "2020-12-31"},
        {"name": "cost", "type": "continuous", "min": 0.0, "max": 1.0, "edges": [0.0, 0.1, 1.0]},
    ],
    "label": "plan",
}
IMAGES = {"kind": "image", "height": 8, "width": 8, "max_value": 16}


def study(**sections: Any) -> Any:
    data = copy.deepcopy(STUDY)
    for name, change in sections.items():
        data[name] = {**data.get(name, {}), **change}
    return parse_study(data)


def resolved(
    sizes: tuple[int, ...] = (100, 200, 300), table: dict[str, Any] = TABLE, **sections: Any
) -> ResolvedStudy:
    return resolve(study(**sections), schema=parse_schema(table), sizes=sizes)


def test_under_local_trust_the_batch_is_the_mean_per_site() -> None:
    assert resolved().sample_rate == 60 * 3 / 600


def test_under_central_trust_the_batch_is_over_all_sites() -> None:
    assert resolved(privacy={"trust": "central"}).sample_rate == 60 / 600


def test_a_batch_larger_than_the_data_is_the_whole_of_it() -> None:
    assert resolved(training={"batch": 1000}).sample_rate == 1.0


def test_a_given_rate_stays() -> None:
    assert resolved(training={"batch": None, "sample_rate": 0.125}).sample_rate == 0.125


def test_every_default_is_filled_in() -> None:
    done = resolved()
    assert done.study.training.exchange == "gradient"
    assert done.exchange == "gradient"
    assert done.study.model.hidden is not None
    assert done.quorum == 2
    assert done.total_rows == 600
    assert [entry.name for entry in done.roster] == ["site-01", "site-02", "site-03"]
    assert done.sampled_of("site-02") == 200
    with pytest.raises(KeyError):
        done.sampled_of("site-04")


def test_writing_a_default_out_does_not_change_the_identity() -> None:
    explicit = resolved(training={"exchange": "gradient", "local_steps": 1}, policy={"min_cohort": 10})
    assert explicit.study_hash == resolved().study_hash


@pytest.mark.parametrize(
    "change",
    [
        {"privacy": {"epsilon": 3.1}},
        {"training": {"rounds": 21}},
        {"model": {"init_seed": 1}},
        {"data": {"sites": {"count": 3, "seed": 1}}},
        {"sizes": (100, 200, 310)},
        {"table": {**TABLE, "label": None}},
        {"simulation": {"evaluate_every": 5}},
    ],
)
def test_any_change_of_content_is_another_study(change: dict[str, Any]) -> None:
    assert resolved(**change).study_hash != resolved().study_hash


def test_equal_studies_are_equal_and_hash_alike_whoever_made_them() -> None:
    one, same, other = (
        resolved(),
        ResolvedStudy.model_validate(resolved().to_json()),
        resolved((100, 200, 310)),
    )
    assert one == same
    assert one is not same
    assert hash(one) == hash(same)
    assert one != other
    assert one != one.canonical()


def test_the_hash_is_that_of_the_text() -> None:
    done = resolved()
    assert done.study_hash == sha256_hex(done.canonical().encode())
    assert canonical(json.loads(done.canonical())).decode() == done.canonical()


def test_the_hash_is_stable_across_processes_and_places(tmp_path: Path) -> None:
    path = tmp_path / "resolved.json"
    path.write_text(resolved().canonical(), encoding="utf-8")
    code = (
        "import sys; from fedgen.config.resolve import ResolvedStudy; "
        "print(ResolvedStudy.from_json(open(sys.argv[1], encoding='utf-8').read()).study_hash)"
    )
    hashes = set()
    for seed in ("0", "4711"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": seed,
            "TZ": "Asia/Tokyo" if seed == "0" else "UTC",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        ran = subprocess.run(
            [sys.executable, "-c", code, str(path)],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
            cwd=tmp_path,
        )
        hashes.add(ran.stdout.strip())
    assert hashes == {resolved().study_hash}


def test_canonical_and_from_json_are_inverse() -> None:
    done = resolved(simulation={"clock_start": "2026-01-31T09:00:00+01:00", "clock_step_s": 60})
    assert ResolvedStudy.from_json(done.canonical()) == done


def test_one_text_is_parsed_once_in_a_process() -> None:
    text = resolved().canonical()
    assert ResolvedStudy.from_json(text) is ResolvedStudy.from_json(text[:1] + text[1:])


def test_a_study_over_the_size_limit_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(IntegrityError) as caught:
        ResolvedStudy.from_json("{" * 5_000_000)
    assert caught.value.code is Code.TOO_LARGE
    with pytest.raises(IntegrityError) as caught:
        ResolvedStudy.from_json(resolved().canonical(), limit=100)
    assert caught.value.code is Code.TOO_LARGE
    with pytest.raises(IntegrityError) as caught:
        ResolvedStudy.from_json("ü" * 60, limit=100)
    assert caught.value.code is Code.TOO_LARGE


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "1", '{"study": {}}', "{" * 1000, '"\ud800"'])
def test_what_is_no_study_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        ResolvedStudy.from_json(text)


@pytest.mark.parametrize(
    "spoil", [lambda text: text + " ", lambda text: text.replace('"rows":100', '"rows":100.0')]
)
def test_only_the_canonical_text_is_accepted(spoil: Any) -> None:
    with pytest.raises(IntegrityError) as caught:
        ResolvedStudy.from_json(spoil(resolved().canonical()))
    assert caught.value.code is Code.MALFORMED


def test_a_key_that_stands_twice_is_not_canonical() -> None:
    text = resolved().canonical().replace('"format":1', '"format":1,"format":1')
    with pytest.raises(IntegrityError):
        ResolvedStudy.from_json(text)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("sample_rate",), 0.9),
        (("sample_rate",), 0.0),
        (("roster", 0, "rows"), 0),
        (("roster", 0, "rows"), 150),
        (("roster", 0, "name"), "site-02"),
        (("roster", 0, "name"), "../../etc"),
        (("study", "privacy", "trust"), "distributed"),
        (("study", "privacy", "unit"), "person"),
        (("study", "privacy", "epsilon"), -1),
        (("study", "training", "exchange"), "auto"),
        (("study", "training", "local_steps"), 3),
        (("study", "model", "name"), "image-vae"),
        (("study", "data", "sites", "count"), 4),
        (("schema", "kind"), "image"),
        (("format",), 2),
        (("more",), 1),
    ],
)
def test_a_coordinator_cannot_send_a_study_that_breaks_its_own_rules(
    path: tuple[Any, ...], value: object
) -> None:
    data = json.loads(resolved().canonical())
    place = data
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    with pytest.raises(ConfigError):
        ResolvedStudy.from_json(canonical(data).decode())


def test_a_refused_study_does_not_repeat_its_values() -> None:
    data = json.loads(resolved().canonical())
    data["study"]["privacy"]["epsilon"] = "CANARY"
    with pytest.raises(ConfigError) as caught:
        ResolvedStudy.from_json(canonical(data).decode())
    assert "CANARY" not in str(caught.value)
    assert "study.privacy.epsilon" in str(caught.value)


def test_study_yaml_is_read_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(resolved().to_yaml(), encoding="utf-8")
    assert read_resolved(path) == resolved()
    assert resolved().study_hash in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("rounds: 20", "rounds: 21"),
        ("study_hash:", "other:"),
        ("epsilon: 3.0", "epsilon: 30"),
        ("- name: site-01", "- nam: site-01"),
    ],
)
def test_a_study_yaml_that_was_edited_is_refused(tmp_path: Path, old: str, new: str) -> None:
    text = resolved().to_yaml()
    assert text.count(old) >= 1
    path = tmp_path / "study.yaml"
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_resolved(path)
    assert caught.value.where == str(path)


def test_a_resolved_study_too_large_to_read_again_is_not_written() -> None:
    names = [f"{number:08d}" + "x" * 300 for number in range(4000)]
    table = {"columns": [{"name": "c", "type": "categorical", "categories": names}]}
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        resolved(table=table).to_yaml()


@pytest.mark.parametrize(
    ("sizes", "what"),
    [((100, 200), "2 have a size"), ((100, 0, 300), "no rows"), ((1, 2, 3, 4), "4 have a size")],
)
def test_every_site_has_a_size(sizes: tuple[int, ...], what: str) -> None:
    with pytest.raises(ConfigError, match=what) as caught:
        resolved(sizes)
    assert caught.value.key == "data.sites.count"


def test_a_model_reads_its_own_kind_of_schema() -> None:
    with pytest.raises(ConfigError) as caught:
        resolved(table=IMAGES)
    assert (caught.value.key, caught.value.hint) == ("model.name", "use image-vae")
    assert resolved(table=IMAGES, model={"name": "image-gan"}).data_schema.kind == "image"


def test_a_split_by_a_column_needs_that_column() -> None:
    with pytest.raises(ConfigError) as caught:
        resolved(data={"sites": {"count": 3, "split": "by", "by": "plann"}})
    assert (caught.value.key, caught.value.hint) == ("data.sites.by", "did you mean 'plan'?")


def test_a_split_without_a_column_needs_a_label() -> None:
    sites = {"sites": {"count": 3, "split": "dirichlet", "alpha": 1.0}}
    assert resolved(data=sites).study.data.sites.by is None
    with pytest.raises(ConfigError) as caught:
        resolved(data=sites, table={**TABLE, "label": None})
    assert caught.value.key == "data.sites.by"


def test_a_resolved_study_built_by_hand_is_checked_too() -> None:
    with pytest.raises(ValidationError, match="sample_rate must follow"):
        ResolvedStudy.model_validate({**resolved().to_json(), "sample_rate": 0.01})


def test_ten_thousand_sites_fit_in_a_message() -> None:
    many = resolved((25_000,) * 10_000, data={"sites": {"count": 10_000}})
    assert len(many.canonical()) < 400_000
    assert ResolvedStudy.from_json(many.canonical()) == many
