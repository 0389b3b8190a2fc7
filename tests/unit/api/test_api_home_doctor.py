"""What `fedgen doctor --home` finds in a site, its relay and a coordinator, each fault by its line."""

from __future__ import annotations

import socket
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from support.deployed import free_port
from support.federation import Desk, small_study
from support.site_homes import invite, make_home, short_folder, write_file

from fedgen.api import home_doctor
from fedgen.api.enrolment import server_init
from fedgen.api.home_doctor import Finding, examine_home
from fedgen.api.reaching import Reached
from fedgen.api.relaying import export_relay
from fedgen.crypto.certificates import make_authority
from fedgen.enrolment.server_home import ServerHome
from fedgen.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fedgen.enrolment.site_home import SiteHome

PLAIN = make_authority("office", days=9, now=datetime.now(UTC))[1]


@pytest.fixture(scope="module")
def desk() -> Desk:
    return Desk(small_study())


@pytest.fixture
def root() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


@pytest.fixture
def home(root: Path, desk: Desk) -> SiteHome:
    made = make_home(root / "home", desk)
    invite(made, desk, days=90)
    made.ca_certificate.write_bytes(PLAIN)
    made.run.mkdir(mode=0o700)
    return made


@pytest.fixture(autouse=True)
def reached(monkeypatch: pytest.MonkeyPatch) -> list[Reached]:
    """Answer for the coordinator; how one is reached is tried in test_api_reaching.py."""
    answers = [Reached(days=40, ahead=0.0)]
    monkeypatch.setattr(home_doctor, "reach", lambda *_, **__: answers[-1])
    return answers


def _found(folder: Path) -> dict[str, Finding]:
    return {it.check: it for it in examine_home(folder).findings}


def _mend(folder: Path) -> set[str]:
    return {name for name, it in _found(folder).items() if it.ok is False}


def test_a_site_that_is_whole_needs_nothing(home: SiteHome) -> None:
    before = {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file()}
    examined = examine_home(home.root)
    assert (examined.role, examined.well, _mend(home.root)) == ("site", True, set())
    assert _found(home.root)["daemon"].ok is None
    assert "5 columns" not in _found(home.root)["table"].found
    assert "all 4 columns" in _found(home.root)["table"].found
    assert {path: path.read_bytes() for path in home.root.rglob("*") if path.is_file()} == before
    assert examined.to_json()["checks"][0]["check"] == "file"


def test_each_fault_of_a_site_is_one_line_and_hides_no_other(
    home: SiteHome, desk: Desk, reached: list[Reached]
) -> None:
    invite(home, desk, days=3)
    home.node_key.chmod(0o644)
    (home.root / "rows.csv").write_text("person,visits,sick\n1,2,true\n")
    reached.append(Reached(days=0, ahead=60.0))
    assert _mend(home.root) == {"keys", "invitation", "table", "coordinator", "clock"}
    found = _found(home.root)
    assert "chmod 600" in found["keys"].found
    assert "ends in 2 days (the coordinator writes the next one" in found["invitation"].found
    assert "no column ward" in found["table"].found
    assert "60 s ahead of" in found["clock"].found
    (home.root / "rows.csv").unlink()
    home.invitation.write_text("{")
    assert {"table", "invitation"} <= _mend(home.root)


def test_a_coordinator_that_is_not_reached_is_named(home: SiteHome, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Reached:
        raise ConfigError("nobody listens there", where="a:1")

    monkeypatch.setattr(home_doctor, "reach", refuse)
    assert _mend(home.root) == {"coordinator"}
    assert "clock" not in _found(home.root)


def test_a_socket_that_the_relays_user_cannot_get_to_is_named(home: SiteHome, root: Path) -> None:
    door = root / "door"
    write_file(home, relay_users=[4711], socket=str(door / "s"))
    assert "not there (make it" in _found(home.root)["socket"].found
    door.mkdir(mode=0o700)
    root.chmod(0o711)  # mkdtemp makes it 0700, and the relay's user must get through
    assert f"{door}: the user 4711 of `relay_users` cannot enter" in _found(home.root)["socket"].found
    door.chmod(0o701)
    assert _mend(home.root) == set()
    root.chmod(0o700)
    assert f"{root}: the user 4711 of" in _found(home.root)["socket"].found
    write_file(home, relay_users=[4711])
    assert "lies in the home" in _found(home.root)["socket"].found


def test_a_relay_knocks_at_the_daemon(home: SiteHome, root: Path, reached: list[Reached]) -> None:
    folder = export_relay(home, root / "relay")
    assert _mend(folder) == {"socket"}
    assert "no daemon listens there" in _found(folder)["socket"].found
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(home.socket))
        door.listen()
        assert _mend(folder) == set()

        def turn_away() -> None:
            door.accept()[0].close()

        turned_away = threading.Thread(target=turn_away)
        door.accept()[0].close()  # the one that was let wait
        turned_away.start()
        assert "lets this user not in" in _found(folder)["socket"].found
        turned_away.join()
    reached.append(Reached(days=9, ahead=-400.0))
    assert "clock" in _mend(folder)
    (folder / "relay.json").write_text("{}")
    assert "run: fedgen site relay" in _found(folder)["file"].found


def test_a_coordinator_is_looked_at_before_and_after_it_is_up(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    server_init(root / "office", f"127.0.0.1:{port}")
    home = ServerHome(root / "office")
    text = home.config.read_text().replace("superlink_port: 9092", f"superlink_port: {free_port()}")
    home.config.write_text(text)
    monkeypatch.setattr(home_doctor.shutil, "which", lambda *_, **__: "/usr/sbin/nginx")
    found = _found(home.root)
    assert not _mend(home.root)
    assert found["superlink"].ok is None
    assert found["port"].found.endswith("is free")
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        assert "another program listens there" in _found(home.root)["port"].found
    monkeypatch.setattr("fedgen.flower.control.Control.is_up", lambda _self: True)
    assert "answers, 40 days left" in _found(home.root)["port"].found
    monkeypatch.setattr(home_doctor.shutil, "which", lambda *_, **__: None)
    home.sealing_key.chmod(0o640)
    home.ca.key.unlink()
    assert _mend(home.root) == {"nginx", "keys"}
    assert "apt-get install nginx-light" in _found(home.root)["nginx"].found


def test_a_certificate_that_ends_soon_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server_init(root / "office", "127.0.0.1:8443")
    monkeypatch.setattr(home_doctor, "WARN_DAYS", 400)
    found = _found(root / "office")["certificates"]
    assert (found.ok, "tls certificate ends in 396 days" in found.found) == (False, True)
    monkeypatch.setattr(home_doctor, "WARN_DAYS", 5000)
    assert "fedgen keys rotate ca --home" in _found(root / "office")["certificates"].found


def test_a_disk_without_room_is_named(home: SiteHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home_doctor, "_FREE", 2**60)
    assert _mend(home.root) == {"disk"}


def test_what_is_no_home_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        examine_home(root / "nowhere")
    (root / "clinic").mkdir(mode=0o700)
    with pytest.raises(ConfigError, match="is no home of a site or a coordinator"):
        examine_home(root / "clinic")
    (root / "open").mkdir()
    (root / "open").chmod(0o755)  # whatever the umask
    with pytest.raises(ConfigError, match="open to others"):
        examine_home(root / "open")
