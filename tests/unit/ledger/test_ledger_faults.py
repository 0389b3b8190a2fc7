"""Two hundred lives of one ledger, each ended by SIGKILL; and a disk copied or full in the middle of a write."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fedgen.crypto.keys import SigningKey
from fedgen.errors import IntegrityError
from fedgen.ledger.entries import Reserved, Settled
from fedgen.ledger.store import Ledger, Receipt
from fedgen.ledger.verify import read, verify
from fedgen.privacy.events import PoissonGaussian

LIVES = 216
KEY = SigningKey.generate()
STEP = PoissonGaussian(0.05, 1.25)
H, D = "a" * 64, "c" * 64

# One program pays for the imports and forks a life for each line it reads. A life is one thread or several on one open
# ledger; it says what it did only after the ledger has answered, and is killed somewhere in between. The program counts
# its own dead, so that who reads the pipe knows that nothing more comes of a life.
PROGRAM = """
import os, signal, sys, threading
from fedgen.crypto.keys import SigningKey
from fedgen.ledger.store import Ledger
from fedgen.privacy.events import PoissonGaussian

path, key = sys.argv[1], SigningKey.load(sys.argv[2])
step = PoissonGaussian(0.05, 1.25)

def live(run, threads):
    ledger = Ledger.open(path, origin="hospital", signing_key=key)
    def work(lane):
        for round_ in range(1 + lane, 100_000, threads):
            receipt = ledger.reserve("claims", "a" * 64, run, round_, 1, step, 1, check=lambda _: None)
            os.write(1, f"reserved {run} {round_}\\n".encode())
            ledger.settle(receipt, "c" * 64)
            os.write(1, f"settled {run} {round_}\\n".encode())
    lanes = [threading.Thread(target=work, args=(lane,)) for lane in range(threads)]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()

for line in sys.stdin:
    run, threads = line.split()
    child = os.fork()
    if not child:
        live(run, int(threads))
        os._exit(0)
    os.write(1, f"started {run} {child}\\n".encode())
    _, status = os.waitpid(child, 0)
    os.write(1, f"gone {run} {os.WTERMSIG(status)}\\n".encode())
"""


def words(program: subprocess.Popen[str]) -> Iterator[list[str]]:
    """Yield what the lives say."""
    assert program.stdout is not None
    for line in program.stdout:
        yield line.split()


@pytest.mark.slow
@pytest.mark.process
def test_a_ledger_of_two_hundred_violent_deaths_is_never_below_the_truth(tmp_path: Path) -> None:
    path, chance = tmp_path / "ledger.db", random.Random(11)
    KEY.save(tmp_path / "key")
    truth: set[tuple[str, str]] = set()
    settled: set[tuple[str, str]] = set()
    slack = 0
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path), str(tmp_path / "key")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"},
    ) as program:  # fmt: skip
        assert program.stdin is not None
        said = words(program)
        for life in range(LIVES):
            run, threads = f"{life:064x}", (1, 1, 8)[life % 3]
            slack += threads
            program.stdin.write(f"{run} {threads}\n")
            # A third dies before or in its first steps, the others a little later; all inside the next few statements.
            patience, child = chance.choice([0, 1, chance.randrange(2, 14)]), 0
            for word, name, more in said:
                if word == "started":
                    child = int(more)
                elif word == "gone":
                    assert int(more) == signal.SIGKILL
                    break
                else:
                    (truth if word == "reserved" else settled).add((name, more))
                    patience -= 1
                if child and patience <= 0:
                    time.sleep(chance.random() * 0.012)
                    os.kill(child, signal.SIGKILL)
                    child, patience = 0, 10**9
            if life % 40 == 39:
                never_below(path, truth, settled, slack)
        program.stdin.close()
    assert len(truth) > LIVES
    never_below(path, truth, settled, slack)


def never_below(path: Path, truth: set[tuple[str, str]], settled: set[tuple[str, str]], slack: int) -> None:
    """Hold the ledger against what was acknowledged, and charge one more round."""
    report = verify(path, KEY.verify_key)
    assert report.problems == ()
    written = [recorded.entry for recorded in read(path)]
    reserved = {(entry.run, str(entry.round)) for entry in written if isinstance(entry, Reserved)}
    assert truth <= reserved
    # What was charged and never acknowledged: at most one round for each thread that was killed.
    assert len(reserved - truth) <= slack
    assert len(settled) <= sum(isinstance(entry, Settled) for entry in written) <= len(reserved)
    with Ledger.open(path, origin="hospital", signing_key=KEY) as ledger:
        assert ledger.spent("claims") == ((STEP, len(reserved)),)
        run = os.urandom(32).hex()
        ledger.settle(ledger.reserve("claims", H, run, 1, 1, STEP, 1, check=lambda _: None), D)
    truth.add((run, "1"))
    settled.add((run, "1"))


def copied(source: Path, folder: Path) -> Path:
    """Copy a database and its log a block at a time while it is written, as a disk without power would keep them."""
    folder.mkdir()
    for name in (source.name, source.name + "-wal"):
        if source.with_name(name).exists():
            shutil.copyfile(source.with_name(name), folder / name)
    return folder / source.name


def test_a_copy_made_in_the_middle_of_writes_opens_whole_or_is_named(tmp_path: Path) -> None:
    """A power cut keeps everything acknowledged before it; what was on its way may be there or not."""
    path, acknowledged, stop = tmp_path / "ledger.db", [0], threading.Event()
    ledger = Ledger.open(path, origin="hospital", signing_key=KEY)

    def write() -> None:
        for round_ in range(1, 100_000):
            if stop.is_set():
                return
            ledger.reserve("claims", H, "b" * 64, round_, 1, STEP, 1, check=lambda _: None)
            acknowledged[0] = round_

    writer = threading.Thread(target=write)
    writer.start()
    opened = 0
    try:
        for cut in range(25):
            before = acknowledged[0]
            copy = copied(path, tmp_path / f"cut-{cut}")
            report = verify(copy, KEY.verify_key)
            if report.problems:  # a copy is not a disk: its two files are of two moments; then it is named
                assert all(":" in problem for problem in report.problems)
                continue
            opened += 1
            assert report.entries - 1 >= before
            with Ledger.open(copy, origin="hospital", signing_key=KEY) as revived:
                assert revived.last_round(H) == report.entries - 1 >= before
                last = revived.last_round(H)
                assert revived.spent("claims") == (((STEP, last),) if last else ())
                revived.reserve("claims", H, "b" * 64, last + 1, 1, STEP, 1, check=lambda _: None)
    finally:
        stop.set()
        writer.join()
        ledger.close()
    assert opened > 12


def test_a_log_cut_anywhere_opens_at_an_earlier_whole_state_or_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Ledger.open(path, origin="hospital", signing_key=KEY) as ledger:
        for round_ in range(1, 6):
            ledger.reserve("claims", H, "b" * 64, round_, 1, STEP, 1, check=lambda _: None)
        whole = copied(path, tmp_path / "whole")
    log, chance = whole.with_name(whole.name + "-wal").read_bytes(), random.Random(3)
    states = set()
    for cut in range(40):
        torn = tmp_path / f"torn-{cut}"
        torn.mkdir()
        shutil.copyfile(whole, torn / "ledger.db")
        (torn / "ledger.db-wal").write_bytes(log[: chance.randrange(len(log) + 1)])
        report = verify(torn / "ledger.db", KEY.verify_key)
        states.add(report.entries if report.ok else -1)
        if report.ok:
            with Ledger.open(torn / "ledger.db", origin="hospital", signing_key=KEY) as revived:
                assert revived.last_round(H) == report.entries - 1
        else:
            # Not even the first entry was on the disk: nothing is believed, and nothing is begun anew.
            with pytest.raises(IntegrityError):
                Ledger.open(torn / "ledger.db", origin="hospital", signing_key=KEY)
    assert len(states) > 3


@pytest.mark.parametrize("durable", [True, False])
def test_a_full_disk_acknowledges_nothing_and_what_was_said_before_stays(
    tmp_path: Path, *, durable: bool
) -> None:
    path = tmp_path / "ledger.db"
    with Ledger.open(path, origin="hospital", signing_key=KEY, durable=durable) as ledger:
        acknowledged: list[Receipt] = []
        drawn: list[int] = []

        def rounds(first: int) -> None:
            for round_ in range(first, first + 200):
                acknowledged.append(
                    ledger.reserve("claims", H, "b" * 64, round_, 1, STEP, 1, check=lambda _: None)
                )
                drawn.append(round_)  # only now would noise be drawn

        pages = limited(ledger)
        with pytest.raises(OSError, match="no space left for the ledger; nothing was spent"):
            rounds(1)
        assert len(acknowledged) == len(drawn) == ledger.last_round(H)
        assert pages > 0
        rounds(len(drawn) + 1)
        assert ledger.spent("claims") == ((STEP, len(drawn)),)
    report = verify(path, KEY.verify_key)
    assert (report.problems, report.entries) == ((), 1 + len(drawn))


def limited(ledger: Ledger) -> int:
    """Let the file grow by a few pages only, until the connection is opened anew."""
    raw: Any = ledger._connected().connection.driver_connection
    pages = int(raw.execute("PRAGMA page_count").fetchone()[0])
    raw.execute(f"PRAGMA max_page_count = {pages + 4}")
    return pages


def test_a_log_that_cannot_be_written_acknowledges_nothing(tmp_path: Path) -> None:
    """A size limit of the process stands in for a disk that is full at the log: the write itself fails."""
    path = tmp_path / "ledger.db"
    program = """
import resource, signal, sys
from fedgen.crypto.keys import SigningKey
from fedgen.ledger.store import Ledger
from fedgen.privacy.events import PoissonGaussian
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
key = SigningKey.load(sys.argv[2])
ledger = Ledger.open(sys.argv[1], origin="hospital", signing_key=key)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
done = 0
try:
    for round_ in range(1, 1000):
        ledger.reserve("claims", "a" * 64, "b" * 64, round_, 1, PoissonGaussian(0.05, 1.25), 1, check=lambda _: None)
        done = round_
except OSError as error:
    print(done, type(error).__name__)
"""
    KEY.save(tmp_path / "key")
    done = subprocess.run(
        [sys.executable, "-c", program, str(path), str(tmp_path / "key")],
        capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )  # fmt: skip
    rounds, kind = done.stdout.split()
    assert kind == "OSError"
    assert int(rounds) > 3
    report = verify(path, KEY.verify_key)
    assert (report.problems, report.entries) == ((), 1 + int(rounds))
    with Ledger.open(path, origin="hospital", signing_key=KEY) as ledger:
        assert ledger.spent("claims") == ((STEP, int(rounds)),)
        ledger.reserve("claims", H, "b" * 64, int(rounds) + 1, 1, STEP, 1, check=lambda _: None)


def test_a_clock_moved_back_between_two_lives_changes_no_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import UTC, datetime

    from fedgen.ledger import store

    class Clock:
        """A clock that stands where it is put."""

        at = datetime(2026, 6, 1, tzinfo=UTC)

        @classmethod
        def now(cls, _zone: Any) -> datetime:
            return cls.at

    monkeypatch.setattr(store, "datetime", Clock)
    path = tmp_path / "ledger.db"
    for life, year in enumerate((2026, 2020, 2031, 2019), start=1):
        Clock.at = datetime(year, 6, 1, tzinfo=UTC)
        with Ledger.open(path, origin="hospital", signing_key=KEY, durable=False) as ledger:
            ledger.reserve("claims", H, "b" * 64, life, 1, STEP, 1, check=lambda _: None)
            assert ledger.last_round(H) == life
    report = verify(path, KEY.verify_key)
    assert report.ok
    assert [warning.split(":")[0] for warning in report.warnings] == ["clock", "clock"]
    assert [recorded.index for recorded in read(path)] == [0, 1, 2, 3, 4]
