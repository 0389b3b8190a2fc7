"""Makes consent.csv: who of the 5,912 members agreed, who withdrew, and when. Public, fixed seed, no real person.

Most members agreed in autumn 2025. Some never answered, some agreed to another purpose only, some consents expire,
and on the days of the run people withdraw: the report shows each wave take effect in the next round.
"""

from __future__ import annotations

import csv
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from fedgen.data.randhie import persons

SEED = 7
START = datetime(2026, 3, 2, 8, tzinfo=UTC)  # as clock_start in study.yaml; one hour a round
SILENT, OTHER_PURPOSE, EXPIRING = 0.02, 0.02, 0.01  # shares of the members
WAVES = {50: 0.03, 100: 0.05, 150: 0.08}  # round: share of the members who withdraw in it


def rows() -> list[tuple[str, str, str, str, str]]:
    """Return the events in the order in which they were recorded."""
    members = int(persons().max())
    rng = np.random.default_rng(SEED)
    kind = rng.random(members)
    events = []
    for number in range(1, members + 1):
        person = f"p{number:05d}"
        agreed = datetime(2025, 10, 1, tzinfo=UTC) + timedelta(minutes=int(rng.integers(0, 60 * 24 * 60)))
        if kind[number - 1] < SILENT:
            continue  # never answered
        purpose = "care_research" if kind[number - 1] < SILENT + OTHER_PURPOSE else "train_generator"
        expires = START + timedelta(hours=75) if kind[number - 1] > 1 - EXPIRING else None
        events.append((agreed, person, purpose, "granted", expires))
    for number, share in WAVES.items():
        for member in rng.choice(members, size=round(members * share), replace=False):
            moment = START + timedelta(hours=number) - timedelta(minutes=int(rng.integers(1, 60)))
            events.append((moment, f"p{member + 1:05d}", "train_generator", "withdrawn", None))
    events.sort(key=lambda event: (event[0], event[1]))
    return [
        (person, purpose, status, moment.isoformat(), "" if expires is None else expires.isoformat())
        for moment, person, purpose, status, expires in events
    ]


def main(path: Path) -> None:
    """Write the log."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("subject", "purpose", "status", "recorded_at", "expires_at"))
        writer.writerows(rows())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "consent.csv")
