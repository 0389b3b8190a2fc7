"""Writes the made-up clinic of this folder: rows, what people said, and who they are; the same each time."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).resolve().parent
PEOPLE = 360
Row = tuple[object, ...]
WARDS = ("north", "south", "west")


def main() -> None:
    """Write rows.csv, events.csv, script.csv and profiles.csv."""
    draw = random.Random(11)
    names = [f"p{number:04d}" for number in range(1, PEOPLE + 1)]
    rows: list[Row] = []
    events: list[Row] = []
    script: list[Row] = []
    profiles: list[Row] = []
    for number, name in enumerate(names, start=1):
        rows.append((name, draw.randint(18, 89), draw.choice(WARDS), draw.choice(("true", "false"))))
        profiles.append(
            (name, f"{draw.randint(1940, 2005)}-{draw.randint(1, 12):02d}-15", "DE", "Europe/Berlin")
        )
        if number % 20 == 0:  # one in twenty was never asked
            continue
        at = f"2026-01-{draw.randint(5, 30):02d}T{draw.randint(8, 17):02d}:00:00+01:00"
        version = 2 if number % 30 == 0 else 3
        events.append((f"c-{name}", name, "train_generator", "given", "true", "clinic-notice", version, at))
        script.append((name, "train_generator", "granted", at, "true", version))
    at = "2026-03-02T09:30:00+01:00"  # in the second hour of the rehearsal
    script += [(name, "train_generator", "withdrawn", at, "", "") for name in names[:3]]
    _write("rows.csv", ("who", "age", "ward", "sick"), rows)
    header = "event_id subject_id purpose action explicit notice_id notice_version effective_at"
    _write("events.csv", header.split(), events)
    _write(
        "script.csv", ["subject", "purpose", "status", "recorded_at", "explicit", "notice_version"], script
    )
    _write("profiles.csv", ("subject", "birth_date", "residence", "timezone"), profiles)


def _write(name: str, header: Sequence[str], rows: Sequence[Row]) -> None:
    with (HERE / name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    main()
