"""Tiny studies on disk: a CSV of made-up people, its schema, and a study file beside them."""

from __future__ import annotations

import copy
import csv
import random
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA: dict[str, Any] = {
    "kind": "table",
    "label": "sick",
    "subject": "who",
    "columns": [
        {"name": "age", "type": "integer", "min": 0, "max": 9},
        {"name": "ward", "type": "categorical", "categories": ["north", "south", "west"]},
        {"name": "height", "type": "continuous", "min": 0, "max": 2, "bins": 4},
        {"name": "sick", "type": "boolean"},
    ],
}
STUDY: dict[str, Any] = {
    "study": "tiny",
    "data": {"source": "csv://rows.csv", "schema": "schema.yaml", "sites": {"count": 3}, "holdout": 0.2},
    "model": {"name": "tabular-vae", "latent": 2, "hidden": [8]},
    "privacy": {"unit": "record", "trust": "local", "epsilon": 3.0, "delta": 1e-5, "clip": 1.0},
    "training": {"rounds": 3, "sample_rate": 0.2},
    "policy": {"min_cohort": 5},
    "release": {"rows": 40, "formats": ["parquet", "csv"]},
    "simulation": {"judge": False, "evaluate_every": 1},
}
HEADER = ("who", "age", "ward", "height", "sick")


def people(count: int = 120) -> list[tuple[str, ...]]:
    """Return rows of made-up people."""
    draw = random.Random(7)
    return [
        (
            f"p{number:04d}",
            str(draw.randint(0, 9)),
            draw.choice(["north", "south", "west"]),
            f"{draw.random() * 2:.3f}",
            draw.choice(["true", "false"]),
        )
        for number in range(count)
    ]


def write_rows(path: Path, rows: list[tuple[str, ...]], header: tuple[str, ...] = HEADER) -> None:
    """Write a CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def write_study(
    folder: Path,
    *,
    rows: list[tuple[str, ...]] | None = None,
    schema: dict[str, Any] | None = None,
    **sections: Any,
) -> Path:
    """Write a study with its schema and rows; each keyword changes keys of a section, None takes a key away."""
    folder.mkdir(parents=True, exist_ok=True)
    study = copy.deepcopy(STUDY)
    for name, changes in sections.items():
        if not isinstance(changes, dict):
            study[name] = changes
            continue
        merged = {**study.get(name, {}), **changes}
        study[name] = {key: value for key, value in merged.items() if value is not None}
    write_rows(folder / "rows.csv", people() if rows is None else rows)
    (folder / "schema.yaml").write_text(yaml.safe_dump(schema or SCHEMA, sort_keys=False), encoding="utf-8")
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    return path


def write_consent(
    path: Path, *, granted: int, withdrawn: dict[int, str] | None = None, purpose: str = "train_generator"
) -> None:
    """Write a log in which the first ``granted`` people agreed; ``withdrawn`` maps a person to an instant."""
    lines = ["subject,purpose,status,recorded_at"]
    lines += [f"p{number:04d},{purpose},granted,2026-01-01T00:00:00Z" for number in range(granted)]
    lines += [f"p{number:04d},{purpose},withdrawn,{when}" for number, when in (withdrawn or {}).items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def digits_study(folder: Path, model: str, **sections: Any) -> Path:
    """Write a study of a few of the builtin images."""
    data = {"source": "builtin:digits", "schema": None, "limit": 90, "sites": {"count": 2}}
    options: dict[str, Any] = {"name": model, "latent": 2}
    if model == "image-vae":
        options["hidden"] = [8]
    else:
        options |= {"hidden": [4, 4], "generator": [4, 4], "fake_batch": 8}
    base: dict[str, Any] = {
        "data": data,
        "model": {"latent": None, "hidden": None, **options},
        "training": {"rounds": 2},
        "release": {"rows": 30, "formats": ["npz", "png"]},
    }
    return write_study(folder, **{**base, **sections})
