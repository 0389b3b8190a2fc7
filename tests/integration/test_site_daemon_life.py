"""The life of a site's daemon: killed and stopped in mid-round, started twice, warm before it is ready."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from support.federation import Desk, small_study
from support.site_homes import ROOT, Running, make_home, running, short_folder, wait_until

from fedgen.api.owner import approve, look
from fedgen.api.serving import served_by
from fedgen.errors import Code, FedgenError
from fedgen.ledger.verify import read, verify
from fedgen.messages import Joined, Refusal, Trained
from fedgen.site import frames

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fedgen.enrolment.site_home import SiteHome

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.fixture
def desk() -> Desk:
    """A study whose round takes seconds, so that something can happen in the middle of it."""
    return Desk(
        small_study(
            rows=40,
            model={"hidden": [1024, 1024]},
            training={"local_steps": 60, "rounds": 4},
            privacy={"noise_multiplier": 30.0},
        )
    )


@pytest.fixture
def home(desk: Desk) -> Iterator[SiteHome]:
    with short_folder() as root:
        made = make_home(root / "h", desk)
        approve(made, look(made, desk.study))
        yield made


def _entries(home: SiteHome, kind: str) -> list[Any]:
    try:
        return [it.entry for it in read(home.ledger) if it.entry.kind == kind]
    except FedgenError:
        return []


def _said(daemon: Running, desk: Desk, request: bytes) -> Any:
    return desk.read(daemon.ask(request), daemon.home.identity())[0]


def test_killed_in_mid_round_it_stays_charged_and_no_round_is_answered_twice(
    home: SiteHome, desk: Desk
) -> None:
    with running(home) as daemon:
        assert isinstance(_said(daemon, desk, desk.join()), Joined)
        lost: list[str] = []

        def ask() -> None:
            try:
                daemon.ask(desk.train(1))
            except frames.Broken as broken:
                lost.append(broken.why)

        asker = threading.Thread(target=ask)
        asker.start()
        wait_until(lambda: len(_entries(home, "reserved")) == 1)
        assert daemon.end(signal.SIGKILL) == -signal.SIGKILL
        asker.join()
        assert lost == ["gone"]
    assert (home.socket).exists()  # as a kill leaves it
    assert served_by(home) is None
    with running(home) as daemon:
        assert len(_entries(home, "reserved")) == 1  # charged, though nothing left
        assert _entries(home, "settled") == []
        again = _said(daemon, desk, desk.train(1))  # the invitation was remembered
        assert isinstance(again, Refusal)
        assert again.code is Code.REPLAYED
        second = _said(daemon, desk, desk.train(1, attempt=2))
        assert isinstance(second, Trained)
        third = _said(daemon, desk, desk.train(1, attempt=2))
        assert isinstance(third, Refusal)
        assert third.code is Code.REPLAYED
        assert daemon.end() == 0
    assert len(_entries(home, "reserved")) == 2
    assert len(_entries(home, "settled")) == 1
    assert verify(home.ledger).ok


def test_told_to_stop_in_mid_round_it_finishes_the_round(home: SiteHome, desk: Desk) -> None:
    with running(home) as daemon:
        _said(daemon, desk, desk.join())
        answers: list[bytes] = []
        asker = threading.Thread(target=lambda: answers.append(daemon.ask(desk.train(1))))
        asker.start()
        wait_until(lambda: len(_entries(home, "reserved")) == 1)
        assert _entries(home, "settled") == []
        assert daemon.end(signal.SIGTERM) == 0
        asker.join()
    assert isinstance(desk.read(answers[0], home.identity())[0], Trained)
    assert len(_entries(home, "settled")) == 1
    assert not home.socket.exists()
    assert served_by(home) is None


def test_one_home_has_one_daemon(home: SiteHome) -> None:
    script = "import sys; from pathlib import Path; from fedgen.api.site_daemon import serve; serve(Path(sys.argv[1]))"
    with running(home) as daemon:
        assert served_by(home) == daemon.process.pid
        second = subprocess.run(
            [sys.executable, "-c", script, str(home.root)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode != 0
        assert "a daemon serves this site already" in second.stderr
        assert daemon.process.poll() is None


_MODULES = """
import json, sys
from pathlib import Path
from fedgen.api.serving import composed
from fedgen.enrolment.site_home import SiteHome
requests = [bytes.fromhex(it) for it in json.load(sys.stdin)]
with composed(SiteHome(Path(sys.argv[1]))) as serving:
    before = set(sys.modules)
    answers = [serving.site.handle(it).hex() for it in requests]
    print(json.dumps({"new": sorted(set(sys.modules) - before), "warm": "torch" in before, "answers": answers}))
"""


def test_a_warm_site_loads_nothing_for_its_first_answers(tmp_path: Path) -> None:
    desk = Desk(small_study(privacy={"noise_multiplier": None, "epsilon": 2.0}))
    home = make_home(tmp_path / "h", desk)
    approve(home, look(home, desk.study))
    done = subprocess.run(
        [sys.executable, "-c", _MODULES, str(home.root)],
        input=json.dumps([it.hex() for it in (desk.join(), desk.train(1))]),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["warm"]
    kinds = [desk.read(bytes.fromhex(it), home.identity())[0] for it in said["answers"]]
    assert [type(it) for it in kinds] == [Joined, Trained]
    heavy = {name for name in said["new"] if name.partition(".")[0] != "fedgen"}
    assert heavy == set()
