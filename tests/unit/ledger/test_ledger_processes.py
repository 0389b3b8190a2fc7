"""Real processes on one ledger: killed at any instant, or racing for the last of a budget."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedgen.crypto.keys import SigningKey
from fedgen.ledger.entries import Reserved, Settled
from fedgen.ledger.store import Ledger
from fedgen.ledger.verify import read, verify
from fedgen.privacy.events import PoissonGaussian

KILLS = 20
KEY = SigningKey.generate()
STEP = PoissonGaussian(0.05, 1.25)
H, D = "a" * 64, "c" * 64

# One program pays for the imports and forks a worker for each line it reads; it has one thread, so forking is safe.
# A worker reserves and settles as fast as it can and says so on the pipe only after the ledger has answered.
PROGRAM = """
import os, sys, time
from pathlib import Path
from fedgen.crypto.keys import SigningKey
from fedgen.errors import BudgetExhausted
from fedgen.ledger.store import Ledger
from fedgen.privacy.events import PoissonGaussian

path, key, durable, go = sys.argv[1], SigningKey.load(sys.argv[2]), sys.argv[3] == "durable", Path(sys.argv[4])
step = PoissonGaussian(0.05, 1.25)

def work(run, limit):
    def check(spent):
        if sum(count for _, count in spent.data) >= limit:
            raise BudgetExhausted("enough")
    with Ledger.open(path, origin="hospital", signing_key=key, durable=durable) as ledger:
        while limit < 10**9 and not go.exists():
            time.sleep(0.001)  # a race begins when both are there
        for round_ in range(1, 100_000):
            time.sleep(0.001 if limit < 10**9 else 0)
            try:
                receipt = ledger.reserve("claims", "a" * 64, run, round_, 1, step, 1, check=check)
            except BudgetExhausted:
                break
            os.write(1, f"reserved {run} {round_}\\n".encode())
            ledger.settle(receipt, "c" * 64)
            os.write(1, f"settled {run} {round_}\\n".encode())
    os.write(1, f"done {run}\\n".encode())

for line in sys.stdin:
    run, limit = line.split()
    child = os.fork()
    if not child:
        work(run, int(limit))
        os._exit(0)
    os.write(1, f"started {run} {child}\\n".encode())
    if limit == str(10**9):
        os.waitpid(child, 0)
        os.write(1, f"gone {run}\\n".encode())
"""


@pytest.fixture
def keyfile(tmp_path: Path) -> Path:
    KEY.save(tmp_path / "key")
    return tmp_path / "key"


def launched(place: str, keyfile: Path, kind: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, place, str(keyfile), kind, str(keyfile.with_name("go"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )


def said(program: subprocess.Popen[str]) -> Iterator[list[str]]:
    """Yield what the workers say, word by word."""
    assert program.stdout is not None
    for line in program.stdout:
        yield line.split()


@pytest.mark.process
def test_a_ledger_killed_at_any_instant_is_never_below_the_truth(place: str, keyfile: Path) -> None:
    chance = random.Random(7)
    truth: set[tuple[str, str]] = set()
    settled: set[tuple[str, str]] = set()
    with launched(place, keyfile, "durable") as program:
        assert program.stdin is not None
        words = said(program)
        for kill in range(KILLS):
            run = f"{kill:064x}"
            program.stdin.write(f"{run} {10**9}\n")
            child, patience = 0, chance.randrange(1, 12)
            for word, name, *more in words:
                if word == "started":
                    child = int(more[0])
                elif word == "gone":
                    break
                else:
                    (truth if word == "reserved" else settled).add((name, more[0]))
                    patience -= 1
                if child and patience <= 0:
                    time.sleep(chance.random() * 0.004)  # somewhere inside the next few statements
                    os.kill(child, signal.SIGKILL)
                    child = 0
        program.stdin.close()
    assert len(truth) >= KILLS
    report = verify(place, KEY.verify_key)
    assert report.problems == ()
    written = [recorded.entry for recorded in read(place)]
    reserved = {(entry.run, str(entry.round)) for entry in written if isinstance(entry, Reserved)}
    assert truth <= reserved
    # Each life may have charged one round that it did not live to tell, and no more.
    assert len(reserved - truth) <= KILLS
    assert len(settled) <= sum(isinstance(entry, Settled) for entry in written) <= len(reserved)
    with Ledger.open(place, origin="hospital", signing_key=KEY) as ledger:
        assert ledger.spent("claims") == ((STEP, len(reserved)),)
        ledger.reserve("claims", H, D, 1, 1, STEP, 1, check=lambda _: None)


@pytest.mark.process
def test_two_processes_cannot_jointly_overspend(place: str, keyfile: Path) -> None:
    limit = 200
    runs = ["1" * 64, "2" * 64]
    with launched(place, keyfile, "simulated") as program:
        assert program.stdin is not None
        for run in runs:
            program.stdin.write(f"{run} {limit}\n")
        rounds, done = dict.fromkeys(runs, 0), 0
        keyfile.with_name("go").touch()
        for word, name, *_ in said(program):
            rounds[name] += word == "reserved"
            done += word == "done"
            if done == len(runs):
                break
        program.stdin.close()
    assert sum(rounds.values()) == limit
    assert all(rounds.values())
    assert verify(place, KEY.verify_key).problems == ()
    with Ledger.open(place, origin="hospital", signing_key=KEY, durable=False) as ledger:
        assert ledger.spent("claims") == ((STEP, limit),)
