"""``docs/how-to/deploy.md`` as a new user does it: every command of the page, in its order, on three machines.

The machines are three folders. What a person would put in is put in here: another address, the fingerprints that are
read out, the digits of the hash, and a yes where a command asks. What is shown for the first hospital is done at both.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from support.by_hand import PATIENCE_S, ROOT, ByHand
from support.deployed import free_port, until
from support.studies import SCHEMA, people, write_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.needs("nginx"),
]
PAGE = ROOT / "docs" / "how-to" / "deploy.md"
SITES = ("hospital-a", "hospital-b")
FENCE = re.compile(r"^```([a-z]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def shown(language: str) -> list[str]:
    return [text for lang, text in FENCE.findall(PAGE.read_text(encoding="utf-8")) if lang == language]


def commands() -> list[list[str]]:
    lines = [line for text in shown("sh") for line in text.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("fedgen ")]


class Walk(ByHand):
    """A person who follows the page; each machine is a folder."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, SITES)
        self.told: dict[str, str] = {"coordinator.example.org:8443": f"127.0.0.1:{self.outside}"}
        self.done: list[str] = []
        for number, name in enumerate(SITES):
            (root / name).mkdir()
            write_rows(root / name / "visits.csv", people(240)[number * 120 : (number + 1) * 120])
            (root / name / "schema.yaml").write_text(yaml.safe_dump(SCHEMA), encoding="utf-8")
        (root / "coordinator").mkdir()
        (root / "coordinator" / "schema.yaml").write_text(yaml.safe_dump(SCHEMA), encoding="utf-8")
        (study,) = (text for text in shown("yaml") if text.startswith("study:"))
        (root / "coordinator" / "study.yaml").write_text(study, encoding="utf-8")

    @property
    def runs(self) -> Path:
        return self.root / "coordinator" / "server" / "runs"

    def type(self, words: list[str]) -> None:
        """Type one line of the page, where it belongs."""
        if words[0] in {"server", "check", "train"} or words == ["doctor", "--home", "server"]:
            self._at("coordinator", words)
            return
        for name in SITES:
            self._at(name, [self._other(word, name) for word in words])

    @staticmethod
    def _other(word: str, name: str) -> str:
        """Return a word of the page as it is at another hospital."""
        if name == SITES[0]:
            return word
        swapped = {SITES[0]: SITES[1], SITES[1]: SITES[0]}
        return re.sub("hospital-[ab]", lambda found: swapped[found[0]], word)

    def _at(self, machine: str, words: list[str]) -> None:
        words = [self.told.get(word, word) for word in words]
        place, key = self.root / machine, " ".join(words[:2])
        stays = key in {"server up", "site serve"} or (key == "site relay" and "--export" not in words)
        if stays or (key == "train study.yaml" and "--resume" not in words):
            if key == "site relay":
                words += ["--port", str(free_port())]
            self.processes[f"{machine}-{key}"] = self._begin(place, machine, key, words)
            return
        if key == "server enroll":  # once for each site
            for name in SITES:
                self.told["$SITE"] = self._fingerprint(name, name)
                mine = [self._other(word, name) for word in words[:-1]]
                shutil.copy(self.root / name / f"{name}.request.json", place)
                self._run(place, [*mine, self.told["$SITE"]])
                shutil.copy(place / f"{name}.invitation.json", self.root / name)
            self.told["$COORDINATOR"] = self._fingerprint("coordinator", "server")
            return
        if key == "site peer":
            (other,) = (it for it in SITES if it != machine)
            shutil.copy(self.root / other / f"{other}.request.json", place)
            words[-1] = self._fingerprint(other, other)
        self._run(place, words)

    def _begin(self, place: Path, machine: str, key: str, words: list[str]) -> subprocess.Popen[bytes]:
        with self.log(f"{machine}-{key.replace(' ', '-')}").open("ab") as log:
            return subprocess.Popen(
                [*self._python(), *words],
                env=self.env,
                cwd=place,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _run(self, place: Path, words: list[str]) -> str:
        done = subprocess.run(
            [*self._python(), *words],
            env=self.env,
            cwd=place,
            input="y\n",
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
        self.done.append(" ".join(words[:2]))
        return done.stdout

    @staticmethod
    def _python() -> list[str]:
        return [sys.executable, "-m", "fedgen"]

    def _fingerprint(self, machine: str, home: str) -> str:
        text = self._run(self.root / machine, ["keys", "show", home])
        (found,) = re.findall(r"fingerprint +([0-9a-f ]+)", text)
        return found.strip()

    def all_said(self, key: str, word: str) -> bool:
        """Say whether each of some processes said a word."""
        return all(word in self.said(f"{name}-site-{key}") for name in SITES)


@pytest.fixture
def walk() -> Iterator[Walk]:
    root = Path(tempfile.mkdtemp(prefix="fd-", dir="/tmp"))
    walk = Walk(root)
    try:
        yield walk
    finally:
        walk.close()
        shutil.rmtree(root, ignore_errors=True)


def test_the_page_works_as_written(walk: Walk) -> None:
    for words in commands():
        key = " ".join(words[:2])
        if key == "server up":
            config = walk.root / "coordinator" / "server" / "server.yaml"
            text = config.read_text(encoding="utf-8")
            config.write_text(
                re.sub(r"(?m)^superlink_port: .*", f"superlink_port: {walk.inside}", text), encoding="utf-8"
            )
        if key == "site approve":
            (study,) = _waiting(walk)
            walk.told["1a2b3c4d"] = study[:8]
        if key == "site wipe":
            for name in SITES:
                for part in ("site serve", "site relay"):
                    process = walk.processes.pop(f"{name}-{part}")
                    process.send_signal(signal.SIGTERM)
                    process.wait(60)
        if "--resume" in words:
            train = walk.processes["coordinator-train study.yaml"]
            until(lambda train=train: train.poll() is not None, "the study to end", PATIENCE_S)
            assert train.returncode == 0, walk.said("coordinator-train-study.yaml")
        walk.type(words)
        if key == "server up":
            until(lambda: "ready" in walk.said("coordinator-server-up"), "the coordinator", PATIENCE_S)
        if key == "site serve":
            until(lambda: walk.all_said("serve", "listening"), "the daemons", PATIENCE_S)
    (folder,) = walk.runs.iterdir()
    assert (folder / "synthetic.csv").is_file()
    assert (folder / "report.html").is_file()
    for name in SITES:
        home = walk.root / name / name
        assert not (home / "keys" / "identity.key").exists()
        assert (home / "ledger.db").is_file()
        assert (walk.root / name / "visits.csv").is_file()
    assert {"server init", "site init", "site join", "site approve", "site wipe", "server revoke"} <= {
        *walk.done
    }


def _waiting(walk: Walk) -> set[str]:
    """Return the hashes of the studies that wait at both sites."""

    def filed() -> set[str]:
        each = [{it.stem for it in (walk.root / name / name / "pending").glob("*.json")} for name in SITES]
        return set.intersection(*each)

    found: set[str] = until(filed, "the study to wait at both sites", PATIENCE_S)
    return found
