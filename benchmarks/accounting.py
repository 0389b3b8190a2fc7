"""The ledger and the accountants: what it costs to charge a round, to check a ledger, and to know an ε.

``python benchmarks/accounting.py [--json] [--quick]``

A reservation takes turns with bare SQLite transactions that insert one row of the same size in the same folder: one
with SQLite's own settings (a rollback journal), one with a write-ahead log as the ledger has, all with full
synchronisation, so all wait for the same disk. Their figures are medians of wall time, because a disk has no least time
that means anything. On a disk that answers in a tenth of a millisecond, what is left of the second ratio is signature,
hashes and triggers. CPU figures are the least over rounds. The ledger of the check holds reservations and settlements
by turns.

Integer noise is asked for ε of 1,000 rounds with nothing remembered (the event's Rényi curve is made), with that curve
remembered and another number of rounds (what a budget search asks again and again), and asked again. Gaussian noise of
the same variance stands beside it, as an estimate.
"""

from __future__ import annotations

import os
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["OMP_NUM_THREADS"] = "1"
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from common import Target, options, publish  # noqa: E402 - a sibling file, run as a script

from fedgen.crypto.keys import SigningKey  # noqa: E402
from fedgen.ledger.store import Ledger  # noqa: E402
from fedgen.ledger.verify import verify  # noqa: E402
from fedgen.privacy import _rdp, accountant, calibrate  # noqa: E402
from fedgen.privacy.estimate import gaussian_estimate  # noqa: E402
from fedgen.privacy.events import PoissonGaussian, PoissonSkellam  # noqa: E402
from fedgen.privacy.integers import after_rounding  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

STUDY, RUN, DIGEST = "11" * 32, "22" * 32, "33" * 32
STEP = PoissonGaussian(0.05, 1.25)
DELTA = 1e-5
WAITERS = 64
BARE, LOGGED = "bare transaction", "bare transaction with a write-ahead log"
ROW_BYTES = 700  # an entry with its hashes, signature and key
# (sigma, q, steps) and what dp_accounting 0.6.0 gives by itself at delta 1e-5: PLD on a grid of 1e-3, and RDP.
PUBLISHED = {
    (0.6, 0.01, 1000): (7.434, 8.680),
    (1.0, 0.01, 1000): (1.829, 2.101),
    (1.5, 0.01, 1000): (0.919, 1.013),
    (2.0, 0.01, 5000): (1.482, 1.613),
    (1.0, 0.05, 200): (4.766, 5.368),
    (1.0, 0.05, 1000): (10.987, 12.017),
    (2.0, 0.10, 500): (5.556, 6.034),
}

COLD = 5
ROUNDS = 1000
SEARCH = 500  # numbers of rounds asked for after the curve is known
GRID, DIMENSION = 2.0**16, 652_824  # grid units to a clip norm, and coordinates
INTEGER = [(1.1, 0.02), (2.0, 0.05), (10.0, 1.0)]  # (standard deviation over clip, q)


def bare(path: Path, journal: str) -> Callable[[], None]:
    """Return a bare, durable transaction: one row in, committed and on the disk."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA journal_mode = {journal}")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, body BLOB)")
    body = os.urandom(ROW_BYTES)

    def transaction() -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO rows (body) VALUES (?)", (body,))
        connection.execute("COMMIT")

    return transaction


def reserving(ledger: Ledger) -> Callable[[], None]:
    """Return a reservation of the next round."""
    rounds = iter(range(1, 10**9))

    def reserve() -> None:
        ledger.reserve("claims", STUDY, RUN, next(rounds), 1, STEP, 4, check=lambda _: None)

    return reserve


def by_turns(
    works: dict[str, Callable[[], None]], rounds: int, each: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the median wall milliseconds and the least CPU milliseconds of each work, taking turns."""
    wall: dict[str, list[float]] = {name: [] for name in works}
    cpu: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        spent = dict.fromkeys(works, 0.0)
        for _ in range(each):
            for name, work in works.items():
                began, cpu_began = time.perf_counter(), time.process_time()
                work()
                spent[name] += time.process_time() - cpu_began
                wall[name].append(time.perf_counter() - began)
        for name, seconds in spent.items():
            cpu[name].append(seconds / each)
    return (
        {name: 1000 * statistics.median(figures) for name, figures in wall.items()},
        {name: 1000 * min(figures) for name, figures in cpu.items()},
    )


def commits_of_waiters(path: Path, key: SigningKey) -> int:
    """Return how many commits it takes until all of 64 threads that wait on one ledger have their receipts."""
    with Ledger.open(path, origin="benchmark", signing_key=key) as ledger:
        said: list[str] = []
        raw: Any = ledger._connected().connection.driver_connection
        raw.set_trace_callback(lambda text: said.append(text) if text == "COMMIT" else None)
        reserve = reserving(ledger)
        threads = [threading.Thread(target=reserve) for _ in range(WAITERS)]
        with ledger._lock:  # so that all of them wait before the first is served
            for thread in threads:
                thread.start()
            while len(ledger._group._waiting) < WAITERS:
                time.sleep(0.001)
        for thread in threads:
            thread.join()
        return len(said)


def long_ledger(path: Path, key: SigningKey, entries: int) -> None:
    """Write a ledger of reservations and settlements by turns, each signed, without waiting for the disk."""
    with Ledger.open(path, origin="benchmark", signing_key=key, durable=False) as ledger:
        for round_number in range(1, entries // 2 + 1):
            receipt = ledger.reserve("claims", STUDY, RUN, round_number, 1, STEP, 4, check=lambda _: None)
            if receipt.index + 1 < entries:
                ledger.settle(receipt, DIGEST)


def cold(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what ``work`` gives and the least of its CPU seconds, with nothing remembered of earlier work."""
    seconds = []
    for _ in range(COLD):
        for cached in (
            accountant._epsilon,
            accountant._renyi,
            calibrate._noise,
            calibrate._variance,
            _rdp.curve,
        ):
            cached.cache_clear()
        began = time.process_time()
        result = work()
        seconds.append(time.process_time() - began)
    return result, min(seconds)


def figures(cases: list[tuple[float, float, int]]) -> list[dict[str, Any]]:
    """Return one row for each case of the published table: both figures, and the CPU seconds of each and of σ."""
    cold(lambda: accountant.epsilon(((STEP, 2),), DELTA))  # loads what is loaded late
    cold(lambda: accountant.epsilon_rdp(((STEP, 2),), DELTA))
    rows = []
    for sigma, q, steps in cases:
        counts = ((PoissonGaussian(q, sigma), steps),)
        pld, pld_s = cold(lambda counts=counts: accountant.epsilon(counts, DELTA))  # type: ignore[misc]
        rdp, rdp_s = cold(lambda counts=counts: accountant.epsilon_rdp(counts, DELTA))  # type: ignore[misc]
        noise, noise_s = cold(
            lambda q=q, steps=steps, goal=pld.epsilon: calibrate.noise_multiplier(q, steps, goal, DELTA)  # type: ignore[misc]
        )
        rows.append(
            {
                "work": f"sigma {sigma:g}, q {q:g}, {steps} steps",
                "pld": round(pld.epsilon, 4),
                "pld_published": PUBLISHED[sigma, q, steps][0],
                "rdp": round(rdp.epsilon, 4),
                "rdp_published": PUBLISHED[sigma, q, steps][1],
                "sigma_back": noise,
                "pld_cpu_s": round(pld_s, 4),
                "rdp_cpu_s": round(rdp_s, 4),
                "calibration_cpu_s": round(noise_s, 4),
            }
        )
    return rows


def integer_figures() -> list[dict[str, Any]]:
    """Return one row for each integer mechanism: its bound, the estimate, and the CPU time of each question."""
    l2, l1 = after_rounding(GRID, DIMENSION)
    rows = []
    for sigma, q in INTEGER:
        event = PoissonSkellam(q, (sigma * GRID) ** 2, l2, l1)
        found, cold_s = cold(lambda event=event: accountant.epsilon(((event, ROUNDS),), DELTA))  # type: ignore[misc]
        began = time.process_time()
        for more in range(1, SEARCH + 1):
            accountant.epsilon(((event, ROUNDS + more),), DELTA)
        known_s = (time.process_time() - began) / SEARCH
        began = time.process_time()
        for _ in range(SEARCH):
            accountant.epsilon(((event, ROUNDS),), DELTA)
        again_s = (time.process_time() - began) / SEARCH
        variance, calibration_s = cold(
            lambda q=q, goal=found.epsilon: calibrate.skellam_variance(q, ROUNDS, goal, DELTA, l2=l2, l1=l1)  # type: ignore[misc]
        )
        rows.append(
            {
                "work": f"Skellam, sigma {sigma:g}, q {q:g}, {ROUNDS} rounds",
                "rdp": round(found.epsilon, 4),
                "gaussian_estimate": round(gaussian_estimate(((event, ROUNDS),), DELTA).about, 4),
                "sigma_back": round(variance**0.5 / GRID, 4),
                "cold_cpu_ms": round(1000 * cold_s, 3),
                "other_rounds_cpu_ms": round(1000 * known_s, 4),
                "asked_again_cpu_ms": round(1000 * again_s, 5),
                "calibration_cpu_ms": round(1000 * calibration_s, 2),
            }
        )
    return rows


def main() -> int:
    """Measure everything."""
    arguments = options(__doc__).parse_args()
    key = SigningKey.generate()
    entries = 10_000 if arguments.quick else 100_000
    cases = list(PUBLISHED)[:3] if arguments.quick else list(PUBLISHED)
    with (
        tempfile.TemporaryDirectory(dir=Path.cwd()) as folder,
        Ledger.open(Path(folder) / "ledger.db", origin="benchmark", signing_key=key) as ledger,
    ):
        works = {
            BARE: bare(Path(folder) / "bare.db", "DELETE"),
            LOGGED: bare(Path(folder) / "logged.db", "WAL"),
            "reservation": reserving(ledger),
        }
        wall, cpu = by_turns(works, rounds=6 if arguments.quick else 20, each=50)
        commits = commits_of_waiters(Path(folder) / "group.db", key)
        long_ledger(Path(folder) / "long.db", key, entries)
        began, cpu_began = time.perf_counter(), time.process_time()
        report = verify(Path(folder) / "long.db", key.verify_key)
        check_s, check_cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
        if not report.ok or report.entries != entries:
            raise SystemExit(f"the ledger does not verify: {report}")
    over = {name: round(wall["reservation"] / wall[name], 3) for name in (BARE, LOGGED)}
    rows: list[dict[str, Any]] = [
        {"work": name, "wall_ms": round(wall[name], 3), "cpu_ms": round(cpu[name], 3)} for name in works
    ]
    rows.append({"work": f"{WAITERS} waiting reservations", "commits": commits})
    rows.append(
        {"work": f"verify {entries:,} entries", "wall_s": round(check_s, 3), "cpu_s": round(check_cpu_s, 3)}
    )
    table = figures(cases)
    integers = integer_figures()
    off = max(
        abs(row[name] - row[f"{name}_published"]) / row[f"{name}_published"]
        for row in table
        for name in ("pld", "rdp")
    )
    scaled = check_cpu_s * 100_000 / entries
    targets = [
        Target(f"a durable reservation over a {BARE}, at most", 1.3, over[BARE], at_most=True),
        Target(f"a durable reservation over a {LOGGED}, at most", 1.3, over[LOGGED], at_most=True),
        Target("CPU of a durable reservation (ms), at most", 0.5, round(cpu["reservation"], 3), at_most=True),
        Target(f"commits that {WAITERS} waiting reservations share, at most", 1, commits, at_most=True),
        Target("CPU to verify 100,000 entries (s), at most", 5.0, round(scaled, 3), at_most=True),
        Target(
            "relative distance of an ε from the published table, at most", 0.01, round(off, 5), at_most=True
        ),
    ]
    return publish("accounting", rows + table + integers, targets, as_json=arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
