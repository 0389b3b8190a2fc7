"""Deployment: a study on real sites against a plain Flower app on the same SuperLink and SuperNodes, in one run.

``python benchmarks/deployment.py [--json] [--quick]``

Three sites on loopback as `fedgen` sets them up: SuperLink with TLS and node keys behind nginx, a daemon and a
SuperNode each. VAE 64-128-16 on digits, five Poisson-sampled steps of about 32 images a round. The plain app is
``benchmarks/plain_flower``: the same model and steps with Opacus, FedAvg, updates in clear. It runs on this very
deployment, before or after the study, never beside it.

A round's time beyond training is the round less the longest training of a site in it. Where it goes is read from the
SuperLink's database, looked at every 20 ms: a message is made, fetched by its node, answered, and the answer taken.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests")]

from common import Target, options, publish  # noqa: E402 - a sibling file, run as a script
from support.by_hand import NAMES, ByHand  # noqa: E402 - what an engineer does by hand
from support.deployed import until  # noqa: E402

from fedgen.flower.control import environment, program  # noqa: E402

IMAGES = "{kind: image, height: 8, width: 8, channels: 1, max_value: 16}\n"
STUDY = """\
study: {name}
data: {{source: "builtin:digits", schema: images.yaml, sites: {{names: [{names}]}}, holdout: 0.0}}
model: {{name: image-vae, latent: 16, hidden: [128]}}
privacy: {{unit: record, trust: local, noise_multiplier: 1.0, delta: 1.0e-5, clip: 1.0}}
training: {{rounds: {rounds}, sample_rate: 0.018, local_steps: 5, timeout_s: 120, optimizer: {{name: adam}}}}
policy: {{min_cohort: 1}}
release: {{rows: 100, formats: [parquet]}}
"""
PROJECT = """\
[project]
name = "plain-flower"
version = "1.0.0"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "nobody"

[tool.flwr.app.components]
serverapp = "deployed:server"
clientapp = "deployed:client"

[tool.flwr.app.config]
"""
# What the examples of Flower do, and two clocks: files in the folder for temporary files that all processes here share.
DEPLOYED = """\
import json, pathlib, tempfile, time
from flwr.clientapp import ClientApp

PLACE = pathlib.Path(tempfile.gettempdir())

def write(name, value):
    with (PLACE / name).open("a") as file:
        file.write(json.dumps(value) + "\\n")

client = ClientApp()

@client.train()
def on_train(message, context):
    import plain_flower.client_app as app
    inner = app.train
    def timed(*words):
        began = time.time()
        try:
            return inner(*words)
        finally:
            write("plain-train.jsonl", [began, time.time() - began])
    app.train = timed
    name = pathlib.Path(str(context.node_config["socket"])).parts[-3]
    context.node_config["partition-id"] = "abc".index(name[-1])
    return app.on_train(message, context)

class Clock(list):
    def append(self, value):
        write("plain-round.jsonl", time.time())
        super().append(value)

from plain_flower.server_app import Timeline, server_app
server = server_app(sites=SITES, rounds=ROUNDS, timeline=Timeline(clock=Clock()))
"""


class Bench(ByHand):
    """A deployment whose sites hold the digits; relays call the proxy without a cable between."""

    def _cut(self) -> list[list[tuple[str, ...]]]:
        return [[] for _ in self.names]

    def _init(self, name: str, rows: list[tuple[str, ...]]) -> None:  # noqa: ARG002 - the digits are built in
        schema = self.root / "images.yaml"
        schema.write_text(IMAGES, encoding="utf-8")
        ceilings = ("--epsilon-per-study", 50, "--epsilon-life", 500, "--delta", 1e-5)
        self.fedgen(
            "site", "init", name, "--name", name, "--source", "builtin:digits", "--schema", schema, *ceilings
        )

    def _join(self, name: str, fingerprint: str) -> None:
        self.fedgen("site", "join", f"{name}.invitation.json", "--home", name, "--fingerprint", fingerprint)
        self.fedgen("site", "relay", name, "--export", f"{name}-relay")

    def digits(self, name: str, names: tuple[str, ...], rounds: int) -> Path:
        """Write a study of some of the sites."""
        folder = self.root / f"study-{name}"
        folder.mkdir()
        (folder / "images.yaml").write_text(IMAGES, encoding="utf-8")
        text = STUDY.format(name=name, names=", ".join(names), rounds=rounds)
        (folder / "study.yaml").write_text(text, encoding="utf-8")
        return folder / "study.yaml"


@dataclass
class Message:
    """The instants of one message, in seconds since 1970."""

    node: int
    made: float
    fetched: float | None = None
    answered: float | None = None
    taken: float | None = None


@dataclass
class Watch(threading.Thread):
    """Follows every message through the SuperLink's database."""

    path: Path
    messages: dict[str, Message] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.ends = threading.Event()

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        """Look until told to stop."""
        while not self.ends.wait(0.02):
            with suppress(sqlite3.Error):
                self._look()

    def _look(self) -> None:
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=1)) as raw:
            asked = raw.execute(
                "SELECT message_id, dst_node_id, created_at, delivered_at FROM message_ins"
            ).fetchall()
            told = dict(raw.execute("SELECT reply_to_message_id, created_at FROM message_res").fetchall())
        now = time.time()
        for name, node, made, delivered in asked:
            one = self.messages.setdefault(name, Message(node, made))
            if delivered and one.fetched is None:
                one.fetched = datetime.fromisoformat(delivered).timestamp()
        for name, one in self.messages.items():
            if name in told:
                one.answered = told[name]
            elif one.answered is not None and one.taken is None:
                one.taken = now

    def close(self) -> list[Message]:
        """Stop; return the messages in the order in which they were made."""
        self.ends.set()
        self.join()
        return sorted(self.messages.values(), key=lambda it: it.made)


def where_it_goes(messages: list[Message]) -> dict[str, float]:
    """Return the median seconds of a message on each part of its way."""
    whole = [it for it in messages if it.fetched and it.answered and it.taken]
    if not whole:
        return {}
    parts = {
        "until_fetched_s": [it.fetched - it.made for it in whole if it.fetched],
        "at_the_site_s": [it.answered - it.fetched for it in whole if it.answered and it.fetched],
        "until_taken_s": [it.taken - it.answered for it in whole if it.taken and it.answered],
    }
    return {name: round(statistics.median(values), 3) for name, values in parts.items()}


def ours(bench: Bench, rounds: int) -> dict[str, Any]:
    """Run the study; return the seconds of its rounds and of their training, and where the rest went."""
    study = bench.digits("digits", NAMES, rounds)
    memory = Memory(bench)
    bench.train(study)
    bench.approve(study)
    watch = Watch(bench.home.superlink_db)
    watch.start()
    memory.start()
    if bench.trained(1200):
        raise SystemExit(f"fedgen train failed: {bench.said('train')[-800:]}")
    messages, lines = watch.close(), bench.lines(study)
    trained: dict[int, list[float]] = {}
    for name in NAMES:
        for number, seconds in re.findall(
            r"round-trained .* round=(\d+) .*seconds=([\d.]+)", bench.said(name)
        ):
            trained.setdefault(int(number), []).append(float(seconds))
    walls = [line["seconds"] for line in lines]
    train = [max(trained[line["round"]]) for line in lines]
    sites = sum(len(line["sites"]) for line in lines)
    inside = [it for it in messages if it.answered]
    memory.ends.set()
    return {
        "walls": walls,
        "train": train,
        "messages": len(inside) / sites,
        "coordinator_mb": memory.peak,
        **where_it_goes(inside),
    }


def read(path: Path) -> list[Any]:
    """Return the lines of a file that a process of the plain app writes."""
    return [json.loads(it) for it in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def plain(bench: Bench, rounds: int) -> dict[str, Any]:
    """Run the plain app on the same SuperLink and SuperNodes."""
    app = bench.root / "plain"
    shutil.copytree(HERE / "plain_flower", app / "plain_flower", ignore=shutil.ignore_patterns("__pycache__"))
    (app / "pyproject.toml").write_text(PROJECT, encoding="utf-8")
    text = DEPLOYED.replace("SITES", str(len(NAMES))).replace("ROUNDS", str(rounds))
    (app / "deployed.py").write_text(text, encoding="utf-8")
    env = {**environment(bench.home.flower), "TMPDIR": bench.env["TMPDIR"]}
    watch = Watch(bench.home.superlink_db)
    watch.start()
    words = [program("flwr"), "run", str(app), "coordinator", "--format", "json"]
    said = subprocess.run(words, env=env, check=True, capture_output=True).stdout
    if not json.loads(said)["success"]:  # its exit code does not say
        raise SystemExit(f"the plain app was not started: {said.decode()}")
    clock = Path(bench.env["TMPDIR"]) / "plain-round.jsonl"
    until(lambda: len(read(clock)) >= rounds + 1, "the plain app", 1200)
    time.sleep(1.0)
    messages, clocks = watch.close(), read(clock)
    trained = read(clock.with_name("plain-train.jsonl"))
    walls = [later - earlier for earlier, later in pairwise(clocks)]
    train = [
        max(
            (seconds for began, seconds in trained if clocks[number] <= began < clocks[number + 1]),
            default=0.0,
        )
        for number in range(rounds)
    ]
    inside = [it for it in messages if it.answered]
    return {
        "walls": walls,
        "train": train,
        "messages": len(inside) / (rounds * len(NAMES)),
        **where_it_goes(inside),
    }


def row(app: str, found: dict[str, Any]) -> dict[str, Any]:
    """Return one line of the table; the first round, which loads everything, is told apart."""
    beyond = [wall - train for wall, train in zip(found["walls"], found["train"], strict=True)]
    parts = ("until_fetched_s", "at_the_site_s", "until_taken_s")
    return {
        "app": app,
        "first_round_s": round(found["walls"][0], 2),
        "later_round_s": round(statistics.median(found["walls"][1:]), 2),
        "training_s": round(statistics.median(found["train"][1:]), 3),
        "beyond_training_s": round(statistics.median(beyond[1:]), 2),
        **{name: found.get(name) for name in parts},
        "messages_a_site_and_round": round(found["messages"], 2),
    }


def peak_mb(process: int) -> float:
    """Return the largest resident set that a process ever had."""
    text = Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", text)[0]) / 1024


class Memory(threading.Thread):
    """Follows the peak of the process that coordinates; one that coordinated before and is ending does not count."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(daemon=True)
        self._bench, self.peak, self.ends = bench, 0.0, threading.Event()
        self._before = {*bench.running("flwr-serverapp")}

    def run(self) -> None:
        """Look until told to stop."""
        while not self.ends.wait(0.25):
            for process in {*self._bench.running("flwr-serverapp")} - self._before:
                with suppress(OSError, IndexError):
                    self.peak = max(self.peak, peak_mb(process))


def with_one_site(bench: Bench) -> float:
    """Return the peak of the coordinator's process over a study of a single site."""
    study = bench.digits("alone", NAMES[:1], 2)
    memory = Memory(bench)
    bench.train(study)
    memory.start()
    bench.approve(study, NAMES[:1])
    if bench.trained(1200):
        raise SystemExit(f"fedgen train failed: {bench.said('train')[-800:]}")
    memory.ends.set()
    return memory.peak


def main() -> int:
    """Run the study and the plain app on one deployment."""
    arguments = options(__doc__).parse_args()
    rounds = 4 if arguments.quick else 10
    bench = Bench(Path(tempfile.mkdtemp(prefix="fd-", dir="/tmp")))
    try:
        bench.enrol()
        bench.up()
        mine = ours(bench, rounds)
        daemons = max(peak_mb(bench.processes[name].pid) for name in NAMES)
        theirs = plain(bench, rounds)
        alone = with_one_site(bench)
    finally:
        bench.close()
        shutil.rmtree(bench.root, ignore_errors=True)
    rows = [row("plain Flower + Opacus", theirs), row("fedgen", mine)]
    ratio = rows[1]["later_round_s"] / rows[0]["later_round_s"]
    more = mine["coordinator_mb"] - alone
    targets = [
        Target(
            "round_ratio (median later round, fedgen / plain), at most", 1.0, round(ratio, 2), at_most=True
        ),
        Target("messages a site and round, at most", 2, rows[1]["messages_a_site_and_round"], at_most=True),
        Target("peak RSS of a site's daemon, MB, at most", 600, round(daemons, 1), at_most=True),
        Target(
            "coordinator, peak RSS with 3 sites less with 1, MB, at most", 20, round(more, 1), at_most=True
        ),
    ]
    return publish(
        "deployment",
        rows,
        targets,
        as_json=arguments.json,
        round_ratio=round(ratio, 3),
        daemon_mb=round(daemons, 1),
        coordinator_mb=round(mine["coordinator_mb"], 1),
        rounds=rounds,
    )


if __name__ == "__main__":
    sys.exit(main())
