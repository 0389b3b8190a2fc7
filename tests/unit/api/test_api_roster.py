"""Who is enrolled decides who may be asked: sizes come from the requests, keys go with a revocation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from support.deployed import let_in
from support.studies import write_study

from fedgen.api.coordinating import RosterTransport, patiently
from fedgen.api.enrolment import server_init
from fedgen.api.prepare import prepare
from fedgen.api.roster import LiveRoster, enrolled
from fedgen.api.training import prepare_deployed
from fedgen.enrolment.server_side import revoke
from fedgen.errors import ConfigError, QuorumLost
from fedgen.flower.nodes import NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from fedgen.coordinator.transport import Answer
    from fedgen.enrolment.server_home import ServerHome

NAMES = ["hospital-a", "hospital-b"]


@pytest.fixture
def home(tmp_path: Path) -> ServerHome:
    return server_init(tmp_path / "server", "127.0.0.1:18443")


def study_of(folder: Path, **sections: Any) -> Path:
    return write_study(folder, data={"sites": {"names": NAMES}, "holdout": 0.0}, **sections)


def test_the_study_that_is_trained_has_the_hash_of_the_one_that_is_simulated(
    home: ServerHome, tmp_path: Path
) -> None:
    path = study_of(tmp_path / "study")
    simulated = prepare(path).resolved
    for entry in simulated.roster:
        let_in(home, entry.name, entry.rows)
    deployed = prepare_deployed(path, (), home)
    assert deployed.resolved == simulated
    assert len(deployed.table) == 0
    assert [len(part) for part in deployed.parts] == [0, 0]


def test_persons_come_from_the_requests_where_the_study_protects_them(
    home: ServerHome, tmp_path: Path
) -> None:
    path = study_of(tmp_path / "study", privacy={"unit": "person"})
    let_in(home, "hospital-a", 60, persons=60)
    let_in(home, "hospital-b", 60)
    with pytest.raises(ConfigError) as caught:
        prepare_deployed(path, (), home)
    assert caught.value.key == "privacy.unit"
    assert "hospital-b declared no number of persons" in caught.value.what


def test_who_is_not_in_is_named_before_anything_starts(home: ServerHome, tmp_path: Path) -> None:
    path = study_of(tmp_path / "study")
    let_in(home, "hospital-a", 60)
    with pytest.raises(ConfigError, match="hospital-b is not enrolled") as caught:
        prepare_deployed(path, (), home)
    assert caught.value.key == "data.sites.names"
    assert caught.value.line is not None
    let_in(home, "hospital-b", 60)
    assert len(prepare_deployed(path, (), home).resolved.roster) == 2
    revoke(home, "hospital-b", now=datetime.now(UTC))
    with pytest.raises(ConfigError, match="hospital-b was revoked"):
        prepare_deployed(path, (), home)


def test_an_invitation_that_expired_is_as_good_as_none(
    home: ServerHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fedgen.api.roster as module

    let_in(home, "hospital-a", 60, days=1)
    assert [site.name for site in enrolled(home, ["hospital-a"])] == ["hospital-a"]

    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(days=2)

    monkeypatch.setattr(module, "datetime", Tomorrow)
    with pytest.raises(ConfigError, match="invitation that expired"):
        enrolled(home, ["hospital-a"])
    assert LiveRoster(home, NAMES).get("hospital-a") is None


def test_made_up_faults_are_for_simulations(home: ServerHome, tmp_path: Path) -> None:
    faults = {"faults": [{"site": "hospital-a", "round": 1, "kind": "drop"}]}
    path = study_of(tmp_path / "study", simulation=faults)
    with pytest.raises(ConfigError) as caught:
        prepare_deployed(path, (), home)
    assert caught.value.key == "simulation.faults"


def test_a_revoked_site_has_no_key_from_the_next_look_on_and_stays_on_the_roster(home: ServerHome) -> None:
    keys = {name: let_in(home, name, 60) for name in NAMES}
    let_in(home, "another", 60)
    roster = LiveRoster(home, NAMES)
    assert list(roster) == NAMES
    assert len(roster) == 2
    found = roster.get("hospital-b")
    assert found is not None
    assert found.public == keys["hospital-b"].public
    assert roster.get("another") is None
    revoke(home, "hospital-b", now=datetime.now(UTC))
    assert roster.get("hospital-b") is None
    assert "hospital-b" in roster
    assert roster.get("hospital-a") is not None


def test_an_invitation_that_ends_in_mid_run_takes_the_key_with_it(
    home: ServerHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fedgen.api.roster as module

    let_in(home, "hospital-a", 60, days=1)
    let_in(home, "hospital-b", 60, days=9)
    roster = LiveRoster(home, NAMES)
    assert all(roster.get(name) is not None for name in NAMES)

    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(days=2)

    monkeypatch.setattr(module, "datetime", Tomorrow)  # and no record changes
    assert roster.get("hospital-a") is None
    assert roster.get("hospital-b") is not None
    assert list(roster) == NAMES


def test_a_record_that_is_being_written_ends_no_run(home: ServerHome) -> None:
    for name in NAMES:
        let_in(home, name, 60)
    roster = LiveRoster(home, NAMES)
    # As a file that another command is writing: there for whoever lists the folder, gone for whoever looks at it.
    (home.sites_folder / ".hospital-a.json.0123456789abcdef.writing.json").symlink_to("gone")
    assert all(roster.get(name) is not None for name in NAMES)


class Nodes:
    """A transport with some nodes present."""

    def __init__(self, present: list[int]) -> None:
        self.present = present

    def nodes(self, expected: int, timeout: float) -> Sequence[int]:
        return self.present

    def exchange(self, frames: Iterable[tuple[int, bytes]], timeout: float, group: str) -> Iterator[Answer]:
        raise AssertionError("nobody is asked here")


def test_nodes_of_other_sites_are_not_shown_the_study(home: ServerHome, tmp_path: Path) -> None:
    study = prepare(study_of(tmp_path / "study")).resolved
    home.flower.mkdir(exist_ok=True)
    (home.flower / NAME).write_text(
        '{"hospital-a": {"key": "x", "node": 1}, "hospital-b": {"key": "y", "node": 2},'
        ' "another": {"key": "z", "node": 3}}'
    )
    transport = RosterTransport(Nodes([1, 2, 3, 4]), home, study)
    assert list(transport.nodes(2, 60.0)) == [1, 2]
    assert list(RosterTransport(Nodes([3, 2]), home, study).nodes(2, 0.0)) == [2]


class Shy:
    """A coordinator whose sites come at the third invitation."""

    def __init__(self, tries: int) -> None:
        self.left = tries

    def run(self, _transport: object) -> str:
        self.left -= 1
        if self.left > 0:
            raise QuorumLost("1 of 2 sites joined")
        return "done"


def test_sites_are_asked_until_enough_owners_said_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    import fedgen.api.coordinating as module

    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    assert patiently(Shy(3), Nodes([]), 60.0) == "done"  # type: ignore[arg-type, comparison-overlap]
    for wait in (0.0, 6.0):
        with pytest.raises(QuorumLost):
            patiently(Shy(3), Nodes([]), wait)  # type: ignore[arg-type]


def test_pauses_between_two_questions_grow_and_end_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import fedgen.api.coordinating as module

    now, slept = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module.time, "sleep", sleep)
    with pytest.raises(QuorumLost):
        patiently(Shy(10**6), Nodes([]), 86_400.0)  # type: ignore[arg-type]
    assert slept[:4] == [4.0, 6.0, 9.0, 13.5]
    assert max(slept) == 30.0
    assert len(slept) < 3000
    assert 86_396.0 <= now[0] <= 86_400.0
