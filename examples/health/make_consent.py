"""Makes the files that the policy packs decide from: who of the 5,912 members is who, and who said what, and when.

Public, fixed seed, no real person. Most members agreed in autumn 2025 on the notice then in force. Some never
answered, some agreed to another purpose only, some agreed on an older notice, some consents expire. Children agreed
by themselves or through a parent; some of them come of age on a day of the run and agree anew. On the days of the
run people withdraw, object and limit the use of sensitive data: the report shows each wave take effect in the next
round.
"""

from __future__ import annotations

import csv
import gzip
import io
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np

from fedgen.data.randhie import persons

SEED = 7
START = datetime(2026, 3, 2, 8, tzinfo=UTC)  # as clock_start in study.yaml; one hour a round
SILENT, OTHER_PURPOSE, EXPIRING, OLD_NOTICE = 0.02, 0.02, 0.01, 0.01  # shares of the members
WAVES = {50: 0.03, 100: 0.05, 150: 0.08}  # round: share of the members who withdraw in it
OBJECT = {75: 0.02, 125: 0.03}  # round: share who object; where consent is the basis, that takes it back too
LIMIT = {110: 0.02}  # round: share who limit the use of sensitive information
CHILDREN, BY_PARENT = 0.03, 0.5  # share of the members, and of these whose parent agreed
TURNING = 60  # children who turn sixteen during the run
COUNTRIES = {"DE": "Europe/Berlin", "AT": "Europe/Vienna", "FR": "Europe/Paris", "IE": "Europe/Dublin"}
PURPOSE, NOTICE = "train_generator", 3
HEADER = (
    "subject",
    "purpose",
    "status",
    "recorded_at",
    "expires_at",
    "explicit",
    "given_by",
    "notice_version",
)
Event = tuple[datetime, str, str, str, datetime | None, str, int]


def log_rows() -> list[tuple[datetime, str, str, str, datetime | None]]:
    """Return the consent events in the order in which they were recorded."""
    members = int(persons().max())
    rng = np.random.default_rng(SEED)
    kind = rng.random(members)
    events: list[tuple[datetime, str, str, str, datetime | None]] = []
    for number in range(1, members + 1):
        person = f"p{number:05d}"
        agreed = datetime(2025, 10, 1, tzinfo=UTC) + timedelta(minutes=int(rng.integers(0, 60 * 24 * 60)))
        if kind[number - 1] < SILENT:
            continue  # never answered
        purpose = "care_research" if kind[number - 1] < SILENT + OTHER_PURPOSE else PURPOSE
        expires = START + timedelta(hours=75) if kind[number - 1] > 1 - EXPIRING else None
        events.append((agreed, person, purpose, "granted", expires))
    for number, share in WAVES.items():
        for member in rng.choice(members, size=round(members * share), replace=False):
            moment = START + timedelta(hours=number) - timedelta(minutes=int(rng.integers(1, 60)))
            events.append((moment, f"p{member + 1:05d}", PURPOSE, "withdrawn", None))
    events.sort(key=lambda event: (event[0], event[1]))
    return events


def profiles() -> dict[str, tuple[str, str, str]]:
    """Return birth date, residence and time zone of every member."""
    rng = np.random.default_rng(SEED + 1)
    names = list(COUNTRIES)
    found = {}
    for number in range(1, int(persons().max()) + 1):
        born = date(1940, 1, 1) + timedelta(days=int(rng.integers(0, 366 * 67)))
        country = names[int(rng.integers(0, len(names)))]
        draw = rng.random()
        if draw < CHILDREN:
            born = date(2012, 1, 1) + timedelta(days=int(rng.integers(0, 700)))
        if number % (5912 // TURNING) == 0:  # sixteen on a day of the run, in a country where that is the age
            born, country = date(2010, 3, 3) + timedelta(days=number % 6), "DE"
        found[f"p{number:05d}"] = (born.isoformat(), country, COUNTRIES[country])
    return found


def events() -> list[Event]:
    """Return everything people said, in the order in which it was recorded."""
    rng = np.random.default_rng(SEED + 2)
    people = profiles()
    found: list[Event] = []
    for moment, person, purpose, status, expires in log_rows():
        young = date.fromisoformat(people[person][0]) > date(2009, 10, 1)
        by = "parent" if young and rng.random() < BY_PARENT else "subject"
        notice = NOTICE - 1 if status == "granted" and rng.random() < OLD_NOTICE else NOTICE
        found.append((moment, person, purpose, status, expires, by, notice))
    for person, (born, country, _) in people.items():
        if country == "DE" and "2010-03-03" <= born <= "2010-03-08":
            noon = datetime(2026, 3, int(born[-2:]), 12, tzinfo=UTC)
            found.append((noon, person, PURPOSE, "renewed", None, "subject", NOTICE))
    for waves, right in ((OBJECT, "objection"), (LIMIT, "limit_sensitive")):
        for number, share in waves.items():
            for member in rng.choice(len(people), size=round(len(people) * share), replace=False):
                moment = START + timedelta(hours=number) - timedelta(minutes=int(rng.integers(1, 60)))
                person = f"p{member + 1:05d}"
                found.append((moment, person, PURPOSE, right, None, "subject", NOTICE))
                if right == "objection":
                    found.append((moment, person, PURPOSE, "withdrawn", None, "subject", NOTICE))
    return sorted(found, key=lambda event: (event[0], event[1], event[3]))


def write(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    """Write a CSV, compressed if its name says so, with the same bytes whenever it is made."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def main(folder: Path) -> None:
    """Write both files."""
    write(
        folder / "consent.csv.gz",
        HEADER,
        [
            (
                person,
                purpose,
                status,
                moment.isoformat(),
                "" if expires is None else expires.isoformat(),
                "true" if status in {"granted", "renewed"} else "",
                by,
                notice if status in {"granted", "renewed"} else "",
            )
            for moment, person, purpose, status, expires, by, notice in events()
        ],
    )
    write(
        folder / "subjects.csv.gz",
        ("subject", "birth_date", "residence", "timezone"),
        [(person, *facts) for person, facts in profiles().items()],
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
