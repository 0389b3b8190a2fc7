"""A hostile ClientApp under the relay's rights: whatever it tries, the site refuses, and then answers the honest one.

The bundle runs as another user where the tests may become one (they run as root then); elsewhere it has the
daemon's own user, and only what a message can do is tried.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.federation import Desk, flipped, small_study
from support.site_homes import ROOT, Running, make_home, running, short_folder, wait_until

from fedgen.api.owner import approve, find_study, look
from fedgen.crypto.envelope import peek
from fedgen.crypto.keys import SigningKey
from fedgen.errors import Code
from fedgen.ledger.verify import read
from fedgen.messages import Joined, Refusal, Trained
from fedgen.site import frames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fedgen.enrolment.site_home import SiteHome

pytestmark = [pytest.mark.process, pytest.mark.slow]
NOBODY = 65534
BUNDLE = ROOT / "tests" / "support" / "hostile_bundle.py"


def _bundle(*arguments: str, user: int | None, sends: list[bytes] | None = None) -> Any:
    """Run the bundle and return what it says."""
    done = subprocess.run(
        [sys.executable, str(BUNDLE), *arguments],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        input=json.dumps([it.hex() for it in sends or []]),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        **({} if user is None else {"user": user, "group": user, "extra_groups": []}),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _other_user() -> int | None:
    """Return a user that a bundle can run as, or None where the tests cannot become one."""
    if os.getuid() != 0:
        return None
    probe = [sys.executable, "-c", "import fedgen.site.frames"]
    try:
        done = subprocess.run(
            probe,
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            env={"PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=False,
        )
    except OSError:
        return None
    return NOBODY if done.returncode == 0 else None


@dataclass
class Scene:
    """A daemon, its coordinator, and a bundle beside it."""

    daemon: Running
    home: SiteHome
    desk: Desk
    user: int | None

    def bundle(self, what: str, *sends: bytes) -> Any:
        said = _bundle(self.daemon.socket, str(self.home.root), what, user=self.user, sends=list(sends))
        assert said["uid"] == (os.getuid() if self.user is None else self.user)
        return said["said"]

    def refusal(self, request: bytes) -> Code:
        """Return the code with which the bundle's request is refused."""
        (answer,) = self.bundle("send", request)
        message, _ = self.desk.read(bytes.fromhex(answer), self.home.identity())
        assert isinstance(message, Refusal)
        return message.code

    def spent(self) -> int:
        return sum(it.entry.kind == "reserved" for it in read(self.home.ledger))

    def check_honest(self) -> None:
        """The honest coordinator is answered, now."""
        answers: list[bytes] = []

        def answered() -> bool:
            try:
                answers.append(self.daemon.ask(self.desk.join()))
            except frames.Broken:
                return False
            return True

        wait_until(answered)
        assert isinstance(self.desk.read(answers[-1], self.home.identity())[0], Joined)
        assert self.daemon.process.poll() is None


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    desk, user = Desk(small_study()), _other_user()
    with short_folder() as root:
        root.chmod(0o755)
        (root / "door").mkdir(mode=0o755)
        users = [os.getuid()] if user is None else [os.getuid(), user]
        home = make_home(
            root / "home", desk, relay_users=users, socket=str(root / "door" / "s"), largest_request=2**20
        )
        with running(home) as daemon:
            daemon.ask(desk.join())
            approve(home, look(home, find_study(home, desk.study.study_hash[:12])))
            it = Scene(daemon, home, desk, user)
            it.check_honest()
            yield it
            it.check_honest()
            assert daemon.end() == 0


def test_nothing_of_the_site_can_be_read(scene: Scene) -> None:
    everything = [scene.home.root, *scene.home.root.rglob("*")]
    own = {
        scene.home.root / "rows.csv",
        scene.home.root / "schema.yaml",
    }  # written by the test, not by fedgen
    for path in everything:
        if path not in own:
            assert stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0, path
    if scene.user is not None:
        assert scene.bundle("read") == {"files": [], "library": []}


def test_garbage_half_frames_and_a_flood_get_no_answer_and_the_honest_one_does(scene: Scene) -> None:
    before = scene.daemon.resident()
    assert scene.bundle("nuisance") == 0
    scene.check_honest()
    assert scene.daemon.resident() - before < 64 * 2**20


def test_connections_that_are_held_are_let_go(scene: Scene) -> None:
    assert scene.bundle("hold") > 0
    scene.check_honest()


def test_a_request_over_the_limit_is_not_read(scene: Scene) -> None:
    before = scene.daemon.resident()
    assert scene.bundle("send", b"x" * (2**20 + 1)) == ["!gone"]
    assert scene.daemon.resident() - before < 64 * 2**20
    scene.check_honest()


def test_no_message_of_a_bundle_spends_anything(scene: Scene) -> None:
    spent, desk = scene.spent(), scene.desk
    mallory = Desk(desk.study)  # the same study, keys of the bundle's own
    other = small_study(training={"rounds": 9})
    lies = {
        "another coordinator's key": (mallory.join(), Code.BAD_SIGNATURE),
        "its own key inside a message": (
            mallory.signed(mallory.invitation(coordinator=desk.signing.public.hex())),
            Code.BAD_SIGNATURE,
        ),
        "a round of another coordinator": (mallory.train(1), Code.BAD_SIGNATURE),
        "not an envelope": (b"not an envelope", Code.MALFORMED),
        "a truncated envelope": (desk.join()[:-1], Code.MALFORMED),
        "a flipped bit": (flipped(desk.train(1)), Code.BAD_SIGNATURE),
        "another study's text under this hash": (desk.join(study=other.canonical()), Code.WRONG_STUDY),
        "a study that nobody approved": (desk.of(study=other).join(), Code.NOT_APPROVED),
        "a round of it": (desk.of(study=other).train(1), Code.WRONG_STUDY),
        "another run": (desk.of(run="77" * 32).train(1), Code.WRONG_STUDY),
        "for another site": (
            desk.signed(desk.invitation(), recipient="site-02"),
            Code.WRONG_RECIPIENT,
        ),
        "weights of another shape": (desk.train(1, body=b"\0" * 40), Code.WRONG_SHAPE),
        "in the name of a site": (desk.signed(desk.invitation(), sender="site-02"), Code.UNKNOWN_SENDER),
    }
    scene.check_honest()
    got = {}
    for what, (request, _) in lies.items():
        got[what] = scene.refusal(request)
    assert got == {what: code for what, (_, code) in lies.items()}
    assert scene.spent() == spent
    scene.check_honest()


def test_an_honest_message_that_is_replayed_is_refused_the_second_time(scene: Scene) -> None:
    scene.check_honest()
    request = scene.desk.train(1)
    first, second = scene.bundle("send", request, request)
    assert isinstance(scene.desk.read(bytes.fromhex(first), scene.home.identity())[0], Trained)
    message, _ = scene.desk.read(bytes.fromhex(second), scene.home.identity())
    assert isinstance(message, Refusal)
    assert message.code is Code.REPLAYED
    assert scene.spent() == 1


def test_what_a_bundle_keeps_of_an_answer_it_cannot_open(scene: Scene) -> None:
    scene.check_honest()
    (answer,) = scene.bundle("send", scene.desk.train(2))
    mallory = Desk(scene.desk.study)
    assert peek(bytes.fromhex(answer)).sealed
    with pytest.raises(Exception, match="sealed for another key"):
        mallory.read(bytes.fromhex(answer), scene.home.identity())


def test_a_stranger_gets_nothing(scene: Scene) -> None:
    """A user who is in no list: the door closes before a byte is read."""
    if scene.user is None:
        assert stat.S_IMODE(Path(scene.daemon.socket).lstat().st_mode) == 0o600
        return
    said = _bundle(
        scene.daemon.socket, str(scene.home.root), "send", user=NOBODY - 1, sends=[scene.desk.join()]
    )
    assert said["said"] == ["!gone"]


def test_a_bundle_with_a_key_of_its_own_has_no_site(scene: Scene) -> None:
    """Whoever signs an answer with another key than the site's is not the site."""
    with pytest.raises(Exception, match="signature"):
        scene.desk.read(scene.daemon.ask(scene.desk.join()), SigningKey.generate())
