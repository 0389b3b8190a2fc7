"""The checkpoint that is kept in a file: whole, never ahead of its ledger, and what shows a rollback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.open_ledgers import KEY, opened, reserve

from fedgen.api.ledgers import verify_ledger
from fedgen.ledger.checkpoint import Checkpoint, beside
from fedgen.ledger.verify import verify


@pytest.mark.parametrize("durable", [True, False])
def test_a_checkpoint_lies_beside_a_file_and_is_held_against_it(tmp_path: Path, *, durable: bool) -> None:
    path = tmp_path / "ledger.db"
    with opened(path, durable=durable) as ledger:
        reserve(ledger, 1)
        assert ledger.keep_checkpoint() == tmp_path / "ledger.db.checkpoint" == beside(path)
        assert Checkpoint.read(beside(path)) == ledger.checkpoint()
        reserve(ledger, 2)  # a checkpoint that is older than its ledger is fine
    (checked,) = verify_ledger(path)
    assert (checked.ok, checked.checkpoint) == (True, beside(path))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["ledger.db", "ledger.db.checkpoint"]


def test_a_ledger_put_back_behind_its_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with opened(path) as ledger:
        reserve(ledger, 1)
        old = path.read_bytes()
        reserve(ledger, 2)
        ledger.keep_checkpoint()
    path.write_bytes(old)
    assert verify(path, KEY.verify_key).ok  # whole by itself
    (checked,) = verify_ledger(path)
    assert checked.report.problems == ("truncated: a checkpoint promises 3 entries, 2 are there",)
    with opened(path) as ledger:  # and lengthened anew by somebody with the key
        reserve(ledger, 7)
        reserve(ledger, 8)
    assert verify_ledger(path)[0].report.problems[0].startswith("rewritten: the first 3 entries")


def test_a_ledger_on_a_server_keeps_its_checkpoint_where_it_is_told(place: str, tmp_path: Path) -> None:
    with opened(place) as ledger:
        reserve(ledger, 1)
        assert (ledger.keep_checkpoint() is None) is place.startswith("postgresql:")
        assert ledger.keep_checkpoint(tmp_path / "kept") == tmp_path / "kept"
    (checked,) = verify_ledger(place, checkpoint=tmp_path / "kept")
    assert (checked.ok, checked.report.entries) == (True, 2)


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one_and_the_ledger(tmp_path: Path) -> None:
    with opened(tmp_path / "ledger.db") as ledger:
        with pytest.raises(FileNotFoundError):
            ledger.keep_checkpoint(tmp_path / "nowhere" / "kept")
        ledger.keep_checkpoint(tmp_path / "kept")
        old = (tmp_path / "kept").read_text(encoding="utf-8")
        reserve(ledger, 1)
        (tmp_path / "folder").mkdir()
        with pytest.raises(OSError, match=r"irectory"):
            ledger.keep_checkpoint(tmp_path / "folder")
        assert (tmp_path / "kept").read_text(encoding="utf-8") == old
        assert reserve(ledger, 2).index == 2
    assert sorted(it.name for it in tmp_path.iterdir()) == ["folder", "kept", "ledger.db"]


PROGRAM = """
import os, sys
from fedgen.crypto.keys import SigningKey
from fedgen.ledger.store import Ledger
from fedgen.privacy.events import PoissonGaussian
key = SigningKey.load(sys.argv[2])
ledger = Ledger.open(sys.argv[1], origin="hospital", signing_key=key)
for line in sys.stdin:
    child = os.fork()
    if not child:
        run, step = line.strip(), PoissonGaussian(0.05, 1.25)
        ledger = Ledger.open(sys.argv[1], origin="hospital", signing_key=key)
        for round_ in range(1, 100_000):
            ledger.settle(ledger.reserve("claims", "a" * 64, run, round_, 1, step, 1, check=lambda _: None), "c" * 64)
            ledger.keep_checkpoint()
            if round_ == 2:
                os.write(1, f"{os.getpid()}\\n".encode())
    os.waitpid(child, 0)
    os.write(1, b"gone\\n")
"""


@pytest.mark.process
def test_a_kill_never_makes_an_honest_ledger_look_rolled_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    KEY.save(tmp_path / "key")
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(path), str(tmp_path / "key")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    ) as program:  # fmt: skip
        assert program.stdin is not None
        assert program.stdout is not None
        for life in range(15):
            program.stdin.write(f"{life:064x}\n")
            child = int(program.stdout.readline())
            time.sleep(0.0007 * life)  # somewhere in the next few writes
            os.kill(child, signal.SIGKILL)
            assert program.stdout.readline() == "gone\n"
            (checked,) = verify_ledger(path)
            assert checked.checkpoint == beside(path)
            assert checked.report.problems == ()
        program.stdin.close()
