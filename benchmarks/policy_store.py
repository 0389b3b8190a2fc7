"""The consent store: what it costs to bring events in, to read them all, and to read them again.

``python benchmarks/policy_store.py --import-only N [--stop-after K]``

Rows for ``benchmarks/policy.py``. 2.4 million consent events of a million people, in a CSV file, into a new SQLite
store; then a newly opened store reads and folds them (cold: nothing of them in the process, the operating system may
have cached the file), and once more (warm). Wall and CPU time on one thread, once each: an import changes what it
measures.

``--import-only`` brings N events in, is killed after K of them if that is asked for, goes on in a new process, and
says what became of every event, and what it cost. Files are made in the system's folder for temporary files.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import numpy as np  # noqa: E402
from common import Target, options, publish  # noqa: E402 - a sibling file, run as a script

from fedgen.policy.columns import Request  # noqa: E402
from fedgen.policy.standing import stand  # noqa: E402
from fedgen.policy.store import ConsentStore, import_file  # noqa: E402

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
    with tempfile.TemporaryDirectory(prefix="fedgen-benchmark-") as folder:
        events(Path(folder) / "events.csv", count, PEOPLE // scale)
        with ConsentStore.open(Path(folder) / "consent.db") as store:
            began, spent = time.perf_counter(), time.process_time()
            done = import_file(store, Path(folder) / "events.csv")
            brought, spent = time.perf_counter() - began, time.process_time() - spent
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
            "CPU seconds": spent,
            "CPU microseconds an event": 1e6 * spent / count,
        },
        {"work": f"read and fold {count:,} events, cold", "seconds": cold[0], "CPU seconds": cold[1]},
        {"work": f"read and fold {count:,} events, warm", "seconds": warm[0], "CPU seconds": warm[1]},
        {"work": "the same after one more event", "seconds": after[0], "CPU seconds": after[1]},
    ]
    targets = [
        Target(
            "seconds to read and fold 2.4 million events from SQLite, cold, at most",
            15,
            cold[0] * scale,
            at_most=True,
        ),
        Target("seconds to read and fold them warm, at most", 1.5, warm[0] * scale, at_most=True),
    ]
    return shown, targets


def _fold(store: ConsentStore) -> tuple[float, float]:
    """Return the wall and CPU seconds until it is known where everybody stands."""
    began, spent = time.perf_counter(), time.process_time()
    view = store.columns()
    request = Request("train_generator", "train", view.known_at, view.known_at)
    stand(view.consent.people, view.consent, view.rights, view.subjects, request)
    return time.perf_counter() - began, time.process_time() - spent


def import_only(count: int, stop_after: int) -> list[dict[str, Any]]:
    """Bring ``count`` events in, killed once after ``stop_after``; return what each process did and what it took."""
    with tempfile.TemporaryDirectory(prefix="fedgen-benchmark-") as folder:
        path, address = Path(folder) / "events.csv", Path(folder) / "consent.db"
        events(path, count, max(count // 2, 1))
        rows = []
        for stop in (stop_after, 0) if stop_after else (0,):
            words = [sys.executable, __file__, "--worker", str(address), str(path), "--stop-after", str(stop)]
            began = time.perf_counter()
            ended = subprocess.run(words, check=False, stdout=subprocess.PIPE, text=True)
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            if ended.returncode != (-signal.SIGKILL if stop else 0):
                raise SystemExit(f"the import ended with {ended.returncode}")
            rows.append(
                {
                    "work": f"import {count:,} events" + (f", killed after {stop:,}" if stop else ""),
                    "seconds": time.perf_counter() - began,
                    "CPU seconds, all so far": used.ru_utime + used.ru_stime,
                    "most memory so far, MB": used.ru_maxrss / 1024,
                    "outcome": ended.stdout.strip() or "killed",
                }
            )
            with ConsentStore.open(address) as store:
                rows[-1]["events in the store"] = store.head().consent
        return rows


def _work(address: str, path: str, stop_after: int) -> None:
    """Import, and die at once when so many rows are behind."""

    def told(rows: int) -> None:
        if stop_after and rows >= stop_after:
            os.kill(os.getpid(), signal.SIGKILL)

    with ConsentStore.open(address) as store:
        done = import_file(store, path, progress=told)
        print(f"added {done.added}, repeated {done.repeated}, kept out {done.quarantined}")


def main() -> int:
    """Measure the import alone."""
    parser = options(__doc__)
    parser.add_argument("--import-only", type=int, default=2_400_000, metavar="N")
    parser.add_argument("--stop-after", type=int, default=0, metavar="K")
    parser.add_argument("--worker", nargs=2, metavar=("STORE", "FILE"))
    chosen = parser.parse_args()
    if chosen.worker:
        _work(chosen.worker[0], chosen.worker[1], chosen.stop_after)
        return 0
    rows = import_only(chosen.import_only, chosen.stop_after)
    return publish("policy_store", rows, [], as_json=chosen.json)


if __name__ == "__main__":
    raise SystemExit(main())
