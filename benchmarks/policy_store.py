"""The consent store: what it costs to bring events in, to read them all, and to read them again.

Rows for ``benchmarks/policy.py``. 2.4 million consent events of a million people, in a CSV file, into a new SQLite
store; then a newly opened store reads and folds them (cold: nothing of them in the process, the operating system may
have cached the file), and once more (warm). Wall time on one thread, once each: an import changes what it measures.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import Target

from fedgen.policy.columns import Request
from fedgen.policy.standing import stand
from fedgen.policy.store import ConsentStore, import_file

EVENTS, PEOPLE = 2_400_000, 1_000_000
ACTIONS = np.array(["given"] * 6 + ["renewed", "withdrawn", "refused", "expired"])


def events(path: Path, count: int, people: int) -> None:
    """Write a file of events."""
    rng = np.random.default_rng(20261121)
    who, said = rng.integers(0, people, count), ACTIONS[rng.integers(0, len(ACTIONS), count)]
    days = np.datetime64("2024-01-01T09:00:00") + rng.integers(0, 600 * 86_400, count)
    with path.open("w") as file:
        file.write("event_id,subject_id,purpose,action,effective_at,notice_version\n")
        for i in range(count):
            file.write(
                f"e-{rng.integers(2**62):016x}{i},p{who[i]:08d},train_generator,{said[i]},{days[i]}Z,3\n"
            )


def store_rows(*, quick: bool) -> tuple[list[dict[str, Any]], list[Target]]:
    """Return the rows and promises of the store."""
    scale = 10 if quick else 1
    count = EVENTS // scale
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        events(Path(folder) / "events.csv", count, PEOPLE // scale)
        with ConsentStore.open(Path(folder) / "consent.db") as store:
            began = time.perf_counter()
            done = import_file(store, Path(folder) / "events.csv")
            brought = time.perf_counter() - began
            if done.added != count:
                raise SystemExit(f"the import lost events: {done}")
        with ConsentStore.open(Path(folder) / "consent.db") as store:
            cold, warm = _fold(store), _fold(store)
            store.withdraw("p00000001", "train_generator")
            after = _fold(store)
    shown = [
        {
            "work": f"import {count:,} events from CSV, SQLite",
            "seconds": brought,
            "events a second": count / brought,
        },
        {"work": f"read and fold {count:,} events, cold", "seconds": cold},
        {"work": f"read and fold {count:,} events, warm", "seconds": warm},
        {"work": "the same after one more event", "seconds": after},
    ]
    targets = [
        Target(
            "seconds to read and fold 2.4 million events from SQLite, cold, at most",
            15,
            cold * scale,
            at_most=True,
        ),
        Target("seconds to read and fold them warm, at most", 1.5, warm * scale, at_most=True),
    ]
    return shown, targets


def _fold(store: ConsentStore) -> float:
    """Return the wall seconds until it is known where everybody stands."""
    began = time.perf_counter()
    view = store.columns()
    request = Request("train_generator", "train", view.known_at, view.known_at)
    stand(view.consent.people, view.consent, view.rights, view.subjects, request)
    return time.perf_counter() - began
