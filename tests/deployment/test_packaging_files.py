"""The shipped files, read as text: no privilege, no secret, no network that is not needed, only commands that exist."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import tomllib
from typing import TYPE_CHECKING, Any

import click
import pytest
import yaml
from support import kit
from support.kit import ROOT

from fedgen.cli.app import command

if TYPE_CHECKING:
    from pathlib import Path

SHIPPED = sorted(
    path
    for folder in ("server", "clients")
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
)
PLAIN_YAML = [path for path in SHIPPED if path.suffix == ".yaml" and "templates" not in path.parts]


@pytest.mark.parametrize("path", PLAIN_YAML, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_yaml_file_can_be_read(path: Path) -> None:
    assert [it for it in yaml.safe_load_all(path.read_text(encoding="utf-8")) if it is not None]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_shipped_file_holds_a_secret_or_a_place_of_the_workshop(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert "PRIVATE KEY" not in text
    assert not re.search(r"(?i)(password|passwd|token|secret)[ \t]*[:=][ \t]*['\"]?[A-Za-z0-9/+]{8,}", text)
    assert not re.search(r"://[^/\s:@]+:[^/\s@]+@", text)
    assert not re.search(r"(?<![\w./-])/(home|root|work|Users)/", text)
    assert path.suffix not in {".key", ".pem", ".db", ".crt"}


# -- Dockerfiles ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", kit.DOCKERFILES, ids=["coordinator", "site"])
def test_the_base_is_pinned_and_one_argument_can_pin_it_by_digest(path: Path) -> None:
    arguments = [rest for word, rest in kit.instructions(path) if word == "ARG"]
    base = next(rest.partition("=")[2] for rest in arguments if rest.startswith("BASE="))
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", base)
    assert {rest.split()[0] for word, rest in kit.instructions(path) if word == "FROM"} == {"${BASE}"}
    assert "sha256:" in path.read_text(encoding="utf-8")
    assert ":latest" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", kit.DOCKERFILES, ids=["coordinator", "site"])
def test_what_is_shipped_runs_as_a_number_and_builds_nothing(path: Path) -> None:
    stage = kit.final_stage(path)
    users = [rest for word, rest in stage if word == "USER"]
    assert users == ["10001:10001"]
    assert stage.index(("USER", users[0])) > max(
        i for i, (word, _) in enumerate(stage) if word in {"RUN", "COPY"}
    )
    run = " ".join(rest for word, rest in stage if word == "RUN")
    assert not re.search(r"\b(gcc|g\+\+|make|build-essential|git|curl|wget|pip install|-dev)\b", run)
    assert "pip uninstall -y setuptools wheel pip" in run
    assert "rm -rf /var/lib/apt/lists/*" in run
    assert "--no-install-recommends" in run


@pytest.mark.parametrize("path", kit.DOCKERFILES, ids=["coordinator", "site"])
def test_no_dockerfile_fetches_or_takes_what_it_does_not_name(path: Path) -> None:
    words = [word for word, _ in kit.instructions(path)]
    assert "ADD" not in words
    sources = {rest.split()[-2] for word, rest in kit.instructions(path) if word == "COPY"}
    assert not sources & {".", "./", "/"}
    assert {"HEALTHCHECK", "ENTRYPOINT", "CMD", "STOPSIGNAL"} <= set(words)
    for word, rest in kit.instructions(path):
        if word in {"ENTRYPOINT", "CMD"}:
            assert rest.startswith("[")
        if word in {"ENV", "ARG"}:
            assert not re.search(r"(?i)password|secret|token", rest)


@pytest.mark.parametrize("folder", ["server", "clients"])
def test_a_build_takes_in_what_is_named_and_nothing_else(folder: str) -> None:
    lines = [
        it
        for it in (ROOT / folder / "Dockerfile.dockerignore").read_text().splitlines()
        if it and it[0] != "#"
    ]
    assert lines[0] == "*"
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {
        name
        for word, rest in kit.instructions(ROOT / folder / "Dockerfile")
        if word == "COPY" and "--from" not in rest
        for name in rest.split()[:-1]
        if not name.startswith("--")
    }
    assert {name.split("/")[0] for name in copied} <= allowed
    assert {"**/*.key", "**/*.db", "**/.env"} <= set(lines[lines.index(f"!{max(allowed)}") :]) | set(lines)


def test_every_dependency_of_the_images_has_a_version() -> None:
    from packaging.requirements import Requirement

    lines = (ROOT / "server" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["sql"], *extras["observe"], *extras["otel"]]
    for requirement in map(Requirement, wanted):
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        assert requirement.specifier.contains(pins[name]), requirement


# -- compose --------------------------------------------------------------------------------------


def _services() -> list[tuple[str, dict[str, Any]]]:
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in kit.COMPOSE]
    return [(name, service) for file in files for name, service in file["services"].items()]


@pytest.mark.parametrize(("name", "service"), _services(), ids=lambda it: it if isinstance(it, str) else "")
def test_every_service_is_locked_down(name: str, service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    user, group = map(int, service["user"].split(":"))
    assert user >= 10_000
    assert group >= 10_000
    assert not {"privileged", "cap_add", "pid", "ipc", "devices", "env_file", "extra_hosts"} & set(service)
    assert service.get("network_mode") in {None, "none"}
    assert service["ulimits"]["core"] == 0
    assert service["pids_limit"]
    assert service["mem_limit"]
    assert not re.search(r":latest|:$", service["image"])
    assert not [it for it in service["volumes"] if "docker.sock" in it]
    assert all("noexec" in it or it.startswith("/run/relay") for it in service["tmpfs"])
    assert ("ports" in service) == (name == "coordinator")


def test_the_daemon_has_no_network_and_the_relay_neither_data_nor_home() -> None:
    services = dict(_services())
    daemon, relay = services["daemon"], services["relay"]
    assert daemon["network_mode"] == "none"
    assert "networks" not in daemon
    assert [it for it in daemon["volumes"] if it.endswith("/data:ro")]
    assert relay["volumes"] == ["socket:/run/fedgen"]
    assert daemon["user"] != relay["user"]
    assert "secrets" not in daemon
    assert set(relay["secrets"]) == {"relay.json", "node.key", "ca.crt"}


def test_secrets_are_files_outside_of_the_source() -> None:
    for path in kit.COMPOSE:
        for secret in yaml.safe_load(path.read_text(encoding="utf-8"))["secrets"].values():
            assert secret["file"].startswith("${FEDGEN_SECRETS:?")


# -- systemd --------------------------------------------------------------------------------------

HARDENED = {
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "PrivateDevices": "yes",
    "RestrictNamespaces": "yes",
    "RestrictSUIDSGID": "yes",
    "LockPersonality": "yes",
    "UMask": "0077",
    "LimitCORE": "0",
}


def _unit(path: Path) -> dict[str, list[str]]:
    keys: dict[str, list[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            keys.setdefault(key, []).append(value)
    return keys


@pytest.mark.parametrize("path", kit.UNITS, ids=lambda path: path.stem)
def test_every_unit_is_hardened(path: Path) -> None:
    unit = _unit(path)
    assert {key: unit[key][-1] for key in HARDENED} == HARDENED
    assert unit["User"][0] in {"fedgen", "fedgen-relay"}
    assert "@system-service" in unit["SystemCallFilter"]


def test_the_daemons_unit_reaches_no_network_and_the_relays_no_data() -> None:
    units = {path.stem: _unit(path) for path in kit.UNITS}
    site, relay = units["fedgen-site"], units["fedgen-relay"]
    assert (site["IPAddressDeny"], site["IPAddressAllow"]) == (["any"], ["localhost"])
    assert "-/var/lib/fedgen" in relay["InaccessiblePaths"][0]
    assert site["User"] != relay["User"]
    assert units["fedgen-retention"]["PrivateNetwork"] == ["yes"]


# -- commands ---------------------------------------------------------------------------------------


def _commands() -> dict[str, list[str]]:
    """Return every command line of fedgen in the shipped files, by where it stands."""
    found: dict[str, list[str]] = {}

    def walk(where: str, value: Any) -> None:
        if isinstance(value, list) and all(isinstance(it, str) for it in value):
            words = [*value, *()]
            if "fedgen" in words and len(words) > words.index("fedgen") + 1:
                found[where] = words[words.index("fedgen") + 1 :]
        for key, it in (
            value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
        ):
            walk(f"{where}.{key}", it)

    for path in [*kit.COMPOSE, *kit.MANIFESTS]:
        walk(path.name, yaml.safe_load(path.read_text(encoding="utf-8")))
    for name, service in _services():
        found[f"compose {name}"] = service["command"]
    for path in kit.DOCKERFILES:
        found[f"{path.parent.name} CMD"] = next(
            list(yaml.safe_load(rest))
            for word, rest in kit.final_stage(path)
            if word == "CMD" and "probe" not in rest
        )
    for path in kit.UNITS:
        found[path.name] = shlex.split(_unit(path)["ExecStart"][0])[1:]
    for chart in kit.CHARTS.values():
        text = (chart / "templates" / "statefulset.yaml").read_text(encoding="utf-8")
        for number, words in enumerate(re.findall(r"command: (\[.*\"fedgen\".*\])", text)):
            walk(f"{chart.name} {number}", {"command": yaml.safe_load(words)})
        text = (chart / "templates" / "NOTES.txt").read_text(encoding="utf-8")
        for number, line in enumerate(re.findall(r"fedgen ((?:server|site) .*)", text)):
            found[f"{chart.name} notes {number}"] = [it for it in line.split() if it != "..."]
    for path in kit.COMPOSE:
        lines = re.findall(r"run --rm \w+ (.*)", path.read_text(encoding="utf-8"))
        for number, line in enumerate(lines):
            found[f"{path.parent.name} comment {number}"] = [it for it in line.split() if it != "..."]
    return found


def test_there_are_commands_to_look_at() -> None:
    assert len(_commands()) >= 20


@pytest.mark.parametrize("words", _commands().values(), ids=_commands().keys())
def test_every_command_is_a_verb_with_options_that_it_has(words: list[str]) -> None:
    group: Any = command()
    rest = list(words)
    while isinstance(group, click.Group):
        assert rest[0] in group.commands, words
        group = group.commands[rest.pop(0)]
    options = {name for parameter in group.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in rest if word.startswith("--")} <= options, words


# -- with-secrets -------------------------------------------------------------------------------------


def test_mounted_secrets_become_private_files_before_the_command_starts(tmp_path: Path) -> None:
    mounted, own = tmp_path / "mounted", tmp_path / "own" / "deep"
    (mounted / "..data").mkdir(parents=True)
    (mounted / "..data" / "node.key").write_text("a key with spaces")
    (mounted / "node.key").symlink_to("..data/node.key")
    (mounted / "a b.json").write_text("{}")
    script = ROOT / "server" / "with-secrets.sh"
    done = subprocess.run(
        ["sh", str(script), str(mounted), str(own), "sh", "-c", 'echo "$1:$(umask)"', "x", "it's there"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "it's there:0077\n"
    assert {path.name: path.read_text() for path in own.iterdir()} == {
        "node.key": "a key with spaces",
        "a b.json": "{}",
    }
    assert stat.S_IMODE(own.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.lstat().st_mode) for path in own.iterdir()} == {0o600}
    assert not any(path.is_symlink() for path in own.iterdir())
    again = subprocess.run(["sh", str(script), str(mounted), str(own), "true"], check=False)
    assert again.returncode == 0


def test_a_command_that_fails_fails_and_the_script_can_be_run(tmp_path: Path) -> None:
    script = ROOT / "server" / "with-secrets.sh"
    assert os.access(script, os.X_OK)
    done = subprocess.run(
        [str(script), str(tmp_path), str(tmp_path / "own"), "sh", "-c", "exit 7"], check=False
    )
    assert done.returncode == 7
