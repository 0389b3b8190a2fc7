"""What a relay is given: the way to the coordinator, Flower's key, a socket; nothing else of the site."""

from __future__ import annotations

import json
import os
import stat
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.federation import Desk, small_study
from support.site_homes import PEM, invite, make_home, write_file

import fedgen.api.relaying as relaying_module
from fedgen.api.relaying import RELAY, Relay, export_relay, relay_of, run
from fedgen.errors import ConfigError, FedgenError, Refused

if TYPE_CHECKING:
    from pathlib import Path

    from fedgen.enrolment.site_home import SiteHome


@pytest.fixture
def desk() -> Desk:
    return Desk(small_study())


@pytest.fixture
def home(tmp_path: Path, desk: Desk) -> SiteHome:
    return make_home(tmp_path / "home", desk, socket="/run/fedgen/site.sock")


def _options(relay: Relay) -> dict[str, str]:
    return dict(zip(relay.arguments[1::2], relay.arguments[2::2], strict=True))


def test_the_supernode_gets_what_it_needs(home: SiteHome) -> None:
    relay = relay_of(home.root, port=19095)
    assert _options(relay) == {
        "--superlink": "coordinator.example.org:8443",
        "--root-certificates": str(home.ca_certificate),
        "--auth-supernode-private-key": str(home.node_key),
        "--node-config": 'socket="/run/fedgen/site.sock"',
        "--isolation": "subprocess",
        "--host": "127.0.0.1",
        "--port": "19095",
    }
    assert "--insecure" not in relay.arguments
    assert "--allow-runtime-dependency-installation" not in relay.arguments
    assert relay.own_user


def test_flower_reads_the_socket_out_of_the_node_config(home: SiteHome) -> None:
    from flwr.common.config import parse_config_args

    assert parse_config_args([_options(relay_of(home.root))["--node-config"]]) == {
        "socket": "/run/fedgen/site.sock"
    }


def test_nothing_of_the_environment_comes_along_that_it_does_not_need(
    home: SiteHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDGEN_CONSENT_STORE_KEY", "canary")
    monkeypatch.setenv("PGPASSWORD", "canary")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    found = relay_of(home.root).environment
    assert "canary" not in found.values()
    assert found["HTTPS_PROXY"] == "http://proxy:3128"
    assert found["FLWR_TELEMETRY_ENABLED"] == "0"
    assert found["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert found["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert found["FLWR_HOME"].startswith(str(home.root))


def test_an_exported_folder_is_enough_and_holds_nothing_else(home: SiteHome, tmp_path: Path) -> None:
    folder = export_relay(home, tmp_path / "relay")
    assert {path.name for path in folder.iterdir()} == {"ca.crt", "node.key", RELAY}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert (folder / "ca.crt").read_text() == PEM
    assert json.loads((folder / RELAY).read_text()) == {
        "format": 1,
        "site": "site-01",
        "address": "coordinator.example.org:8443",
        "socket": "/run/fedgen/site.sock",
    }
    relay = relay_of(folder)
    assert not relay.own_user
    mine, exported = _options(relay_of(home.root)), _options(relay)
    differs = {name for name in mine if mine[name] != exported[name]}
    assert differs == {"--root-certificates", "--auth-supernode-private-key"}
    assert str(home.root) not in " ".join(relay.arguments) + " ".join(relay.environment.values())
    export_relay(home, folder)  # again, after a rotation


@pytest.mark.parametrize("place", [".", "relay", "run/../deep/er"])
def test_nothing_is_exported_into_the_home(home: SiteHome, place: str) -> None:
    before = sorted(home.root.rglob("*"))
    with pytest.raises(ConfigError, match="lies in the site's home"):
        export_relay(home, home.root / place)
    assert sorted(home.root.rglob("*")) == before
    assert relay_of(home.root).own_user


def test_root_reads_as_the_sites_user_and_writes_as_the_relays(
    home: SiteHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What root does; where the tests are root, it is done indeed."""
    owner, acted = home.root.stat().st_uid, list[int]()
    relay = owner
    write_file(home, relay_users=[4711])
    if os.getuid() == 0:
        owner, relay = 4712, 4711
        for path in (home.root, *home.root.rglob("*")):
            os.chown(path, owner, -1)
        for folder in (tmp_path, *tmp_path.parents):
            folder.chmod(0o755)
            if folder.name.startswith("pytest-of-"):
                break  # how many lie below it depends on who runs pytest
    seteuid = os.seteuid
    monkeypatch.setattr(relaying_module, "_is_root", lambda: True)
    monkeypatch.setattr(os, "seteuid", lambda user: acted.append(user) or os.getuid() or seteuid(user))
    if os.getuid() != 0:
        monkeypatch.setattr(os, "fchown", lambda *_: None)
    folder = export_relay(home, tmp_path / "relay")
    export_relay(home, folder)
    assert acted == [owner, 0, 4711, 0] * 2
    assert os.geteuid() == os.getuid()
    assert {path.stat().st_uid for path in (folder, *folder.iterdir())} == {relay}


@pytest.mark.parametrize("linked", [True, False])
def test_root_gives_away_no_folder_but_the_one_it_made(
    home: SiteHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, linked: bool
) -> None:
    """The relay's user may write the place of the folder, and put something else there once root has made it."""
    write_file(home, relay_users=[4711])
    folder, precious = tmp_path / "relay", tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("root's")
    mkdir = type(tmp_path).mkdir

    def exchanged(path: Path, *args: Any, **options: Any) -> None:
        mkdir(path, *args, **options)
        if path == folder:
            path.rmdir()
            path.symlink_to(precious) if linked else precious.rename(path)

    given = list[object]()
    monkeypatch.setattr(type(tmp_path), "mkdir", exchanged)
    monkeypatch.setattr(relaying_module, "_is_root", lambda: True)
    monkeypatch.setattr(os, "seteuid", lambda _user: None)
    for name in ("chown", "fchown"):
        monkeypatch.setattr(os, name, lambda *args, **_options: given.append(args))
    with pytest.raises(ConfigError):
        export_relay(home, folder)
    assert given == []


@pytest.mark.parametrize("socket", ["/run/a b", '/run/a"b', "/run/a\\b", "/run/a=b"])
def test_a_socket_that_flower_would_misread_is_refused(home: SiteHome, socket: str) -> None:
    write_file(home, socket=socket)
    with pytest.raises(ConfigError, match="plain"):
        relay_of(home.root)


def test_who_has_not_joined_or_whose_invitation_is_over_does_not_relay(home: SiteHome, desk: Desk) -> None:
    invite(home, desk, days=-1)
    with pytest.raises(Refused, match="expired"):
        relay_of(home.root)
    home.invitation.unlink()
    with pytest.raises(ConfigError, match="no invitation"):
        relay_of(home.root)


def test_a_folder_open_to_others_or_damaged_is_refused(home: SiteHome, tmp_path: Path) -> None:
    folder = export_relay(home, tmp_path / "relay")
    (folder / RELAY).write_text("{}")
    with pytest.raises(ConfigError, match="not what a relay needs"):
        relay_of(folder)
    folder.chmod(0o755)
    with pytest.raises(ConfigError, match="open to others"):
        relay_of(folder)
    with pytest.raises(FedgenError):
        relay_of(tmp_path / "none")


def test_it_becomes_the_supervisor_of_the_program(home: SiteHome, monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[Any] = []
    monkeypatch.setattr(os, "execve", lambda *what: became.extend(what))
    relay = relay_of(home.root)
    run(relay)
    program, words, environment = became
    assert (program, environment) == (sys.executable, relay.environment)
    # -P: what lies in the folder where it is started is not imported.
    python = (sys.executable, "-P", "-m")
    keeper, supernode = "fedgen.flower.keeper", "fedgen.flower.supernode"
    assert words == (*python, keeper, "supernode", *python, supernode, *relay.arguments[1:])
    moved: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "dup2", lambda *which: moved.append(which))
    run(relay)
    assert moved == []
    run(relay, stdout_is_taken=True)
    assert moved == [(2, 1)]
    assert relay.program.endswith("flower-supernode")
    assert relay.environment["PATH"].startswith(os.path.dirname(relay.program))  # noqa: PTH120
