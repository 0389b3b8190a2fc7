"""Three sites and a coordinator, made and run with fedgen's commands alone: a study, and whatever may befall one.

One deployment serves every test of this file, in the order in which they stand: to make one takes longer than a study.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch
from support.by_hand import NAMES, PATIENCE_S, by_hand
from support.deployed import until
from support.ledgers import entries
from support.listening import Listener, everything
from support.looking import kinds, leaked, secrets, updates
from support.plain_app import planted, write_app
from support.superlink_db import deaf, failing, lives

from fedgen.api.simulation import simulate
from fedgen.crypto.header import MAGIC
from fedgen.flower.control import environment, program
from fedgen.ledger.entries import Reserved
from fedgen.ledger.verify import verify
from fedgen.messages import Kind
from fedgen.models.state import load_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.by_hand import ByHand

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.needs("nginx"),
]


@pytest.fixture(scope="module")
def world() -> Iterator[ByHand]:
    with by_hand() as made:
        yield made


@pytest.fixture(scope="module")
def first(world: ByHand) -> tuple[Path, Listener]:
    """A study over all three sites, and what the SuperLink's database held while it ran."""
    study = world.study("first", training={"rounds": 2, "quorum": 3})  # nobody begins before all are there
    with Listener(world.home.superlink_db) as heard:
        world.train(study)
        world.approve(study)
        assert world.trained() == 0, world.said("train")
    return study, heard


def newest_weights(folder: Path) -> torch.Tensor:
    newest = max((folder / "checkpoints").glob("round-*.safetensors"))
    return load_tensors(newest)[0]["weights"]


def asked_of(world: ByHand, name: str) -> dict[str, Any]:
    """Return what a site says of itself."""
    found: dict[str, Any] = world.json("site", "status", name)
    return found


def charged(world: ByHand, study: Path, name: str) -> list[tuple[int, int]]:
    """Return (round, attempt) of every time that a study was charged to a site's data."""
    found = [it for it in entries(world.site(name).root / "ledger.db") if isinstance(it, Reserved)]
    return [(it.round, it.attempt) for it in found if it.study_hash == world.hash_of(study)]


def ledger_is_whole(world: ByHand, name: str) -> bool:
    home = world.site(name)
    return verify(home.root / "ledger.db", home.ledger_signing_key().verify_key).ok


# -- a study, from nothing to its report ------------------------------------------------------------


def test_a_study_by_hand_ends_with_its_results(world: ByHand, first: tuple[Path, Listener]) -> None:
    study, _ = first
    done, record, folder = world.lines(study), world.record(study), world.folder(study)
    assert [line["round"] for line in done] == [1, 2]
    assert all(sorted(line["sites"]) == [*NAMES] for line in done)
    assert all(not line["missing"] and not line["rejected"] for line in done)
    assert (record["outcome"], record["backend"]) == ("completed", "deployed")
    for name in ("report.html", "synthetic.parquet", "synthetic.csv", "study.yaml"):
        assert (folder / name).is_file(), name
    for name in NAMES:
        assert ledger_is_whole(world, name)
        assert len(asked_of(world, name)["approved"]) >= 1


def test_each_site_is_asked_to_train_once_a_round(world: ByHand, first: tuple[Path, Listener]) -> None:
    """As each site's own log says."""
    trained = [world.said(name).count("round-trained") for name in NAMES]
    assert trained == [2, 2, 2]


# -- what stands in the SuperLink's database --------------------------------------------------------


def test_the_superlink_never_holds_an_update_a_metric_or_a_person_in_clear(
    world: ByHand, first: tuple[Path, Listener]
) -> None:
    _, heard = first
    texts = [*heard.texts(), everything(world.home.root)]
    clear = updates(world, texts)
    assert len(clear) >= 3, "the listener missed the updates: it proves nothing"
    assert leaked(secrets(clear), texts) == set()
    wire = [bytes(cable.heard) for cable in world.cables.values()]
    assert all(len(it) > 10_000 for it in wire)
    assert leaked([*secrets(clear), MAGIC, b"/v1/fleet"], wire) == set()


def test_the_same_look_finds_what_nobody_sealed(world: ByHand, first: tuple[Path, Listener]) -> None:
    """The negative control: an app of somebody else, which sends its updates as Flower's own examples do."""
    app = write_app(world.root / "plain")
    env = {**environment(world.home.flower), "TMPDIR": str(world.root / "tmp")}
    with Listener(world.home.superlink_db) as heard:
        words = [program("flwr"), "run", str(app), "coordinator", "--format", "json"]
        said = subprocess.run(words, env=env, check=True, capture_output=True, timeout=PATIENCE_S).stdout
        assert json.loads(said)["success"], said  # its exit code says nothing
        until(lambda: leaked(planted(), heard.texts()) == {*planted()}, "the planted update", 90.0)


# -- the same study, simulated ----------------------------------------------------------------------


def test_a_real_site_refuses_a_seed_so_noise_is_compared_and_not_bits(
    world: ByHand, first: tuple[Path, Listener], tmp_path: Path
) -> None:
    """Two deployed rounds lie as far from a simulation as two simulations from each other.

    The noise is drawn independently: the squared distance of two runs is, over d weights, a sum of
    d terms of the same size. Over d > 400 its relative spread is below sqrt(2 / d) < 0.071 were they independent; the
    bounds are four times that wide.
    """
    study, _ = first
    deployed = newest_weights(world.folder(study))
    runs = [newest_weights(simulate(study, out=tmp_path / str(number)).path) for number in range(3)]
    assert world.hash_of(study) == json.loads((tmp_path / "0" / "run.json").read_text())["study_hash"]

    def distance(left: torch.Tensor, right: torch.Tensor) -> float:
        return float((left - right).pow(2).sum())

    among = [distance(runs[0], runs[1]), distance(runs[0], runs[2]), distance(runs[1], runs[2])]
    usual = sum(among) / 3
    assert deployed.numel() > 400
    ratios = [distance(deployed, run) / usual for run in runs]
    assert all(0.72 < ratio < 1.28 for ratio in ratios), ratios
    # Negative control: a model of the same noise that is one more step away.
    moved = deployed + (deployed - runs[0])
    assert distance(moved, runs[1]) / usual > 1.28


def test_a_study_with_a_seed_is_refused_by_every_real_site(world: ByHand) -> None:
    study = world.study("seeded", privacy={"insecure_seed": 3})
    process = world.start("train", "train", study, "--server", "server", "--wait", 0)
    until(lambda: process.poll() is not None, "the refusal", PATIENCE_S)
    del world.processes["train"]
    assert process.returncode != 0
    assert "study-refused" in world.said("train"), world.said("train")
    assert world.lines(study) == []


# -- an owner's word --------------------------------------------------------------------------------


def test_who_did_not_say_yes_is_left_out_and_who_takes_it_back_leaves(world: ByHand) -> None:
    study = world.study("word", training={"rounds": 5, "quorum": 1})
    digest = world.hash_of(study)
    # A yes to another study, or to one that nobody asked for, is no yes to this one.
    world.fedgen("site", "approve", "deadbeefdead", "--home", NAMES[2], "--yes", code=3)
    world.agree(study, NAMES[:2])
    world.train(study, "--resume")
    world.wait_for_round(study, 1)
    world.fedgen("site", "revoke", digest[:12], "--home", NAMES[1])
    revoked_after = len(world.lines(study))
    assert world.trained() == 0, world.said("train")
    done = world.lines(study)
    assert [line["round"] for line in done] == [1, 2, 3, 4, 5]
    assert sorted(done[0]["sites"]) == [*NAMES[:2]]
    assert all(line["missing"][NAMES[2]] == "not-approved" for line in done)
    # The round that was on its way when the word was taken back may still hold it; none after that does.
    later = done[revoked_after + 1 :]
    assert later
    assert all(line["sites"] == [NAMES[0]] for line in later)
    assert all(line["missing"][NAMES[1]] in {"not-approved", "not-admitted"} for line in later)
    assert digest in asked_of(world, NAMES[0])["approved"]
    assert digest in asked_of(world, NAMES[1])["revoked"]
    assert digest not in asked_of(world, NAMES[2])["approved"]
    assert digest[:12] not in "".join(
        line for line in world.said(NAMES[2]).splitlines() if "round-trained" in line
    )


# -- rounds that are on their way ------------------------------------------------------------------


def asks(world: ByHand, study: Path) -> None:
    """Wait until the next round was asked for and is not closed yet: a process of a relay works on it."""
    world.wait_for_round(study, 1)
    until(lambda: not world.running("flwr-clientapp"), "a pause", PATIENCE_S)
    until(lambda: world.running("flwr-clientapp"), "the next round to be on its way", PATIENCE_S)


def is_back(world: ByHand, study: Path, name: str) -> None:
    """Wait until a round that is closed after this instant has a site in it."""
    before = len(world.lines(study))

    def seen() -> bool:
        train = world.processes["train"]
        assert train.poll() is None or len(world.lines(study)) > before, world.said("train")
        return any(name in it["sites"] for it in world.lines(study)[before:])

    until(seen, f"{name} again", PATIENCE_S)


# -- a full disk ------------------------------------------------------------------------------------


def test_a_full_disk_at_the_coordinator_stops_the_run_and_loses_nothing(world: ByHand) -> None:
    study = world.study("full", training={"rounds": 4, "quorum": 2})
    process = world.train(study)
    world.approve(study)
    world.wait_for_round(study, 1)
    with world.full_disk():
        until(lambda: process.poll() is not None, "the run to stop", PATIENCE_S)
    del world.processes["train"]
    assert process.returncode != 0
    assert "Traceback" not in world.said("train"), world.said("train")
    done = len(world.lines(study))
    assert done < 4
    world.train(study, "--resume")
    assert world.trained(400.0) == 0, world.said("train")
    assert [line["round"] for line in world.lines(study)] == [1, 2, 3, 4]
    assert all(ledger_is_whole(world, name) for name in NAMES)


# -- a coordinator that fails -----------------------------------------------------------------------


def test_a_superlink_that_fails_for_a_while_has_its_sites_back(world: ByHand) -> None:
    """Flower's SuperNode stops working when it is answered with a 500: ours asks on."""

    def heard(word: str) -> list[int]:
        return [world.said(f"relay-{name}").count(f"fedgen: the SuperLink {word}") for name in NAMES]

    def each_heard(word: str, before: list[int]) -> bool:
        return all(now > was for now, was in zip(heard(word), before, strict=True))

    before = heard("fails")
    with failing(world.home.superlink_db):
        until(lambda: each_heard("fails", before), "the failures", PATIENCE_S)
        back = heard("is back")
    until(lambda: each_heard("is back", back), "the end of them", PATIENCE_S)
    study = world.study("failed", training={"rounds": 1, "quorum": 3})
    world.train(study)
    world.approve(study)
    assert world.trained() == 0, world.said("train")
    assert [sorted(line["sites"]) for line in world.lines(study)] == [[*NAMES]]


def test_a_superlink_that_takes_no_heartbeat_for_a_while_has_everybody_back(world: ByHand) -> None:
    """Flower's heart stops at the first 500: a site would count as gone from a minute later on, a ServerApp as well."""

    def ends() -> int:
        return sum(world.said(f"relay-{name}").count("supernode ended") for name in NAMES)

    database = world.home.superlink_db
    study = world.study("deaf", training={"rounds": 1, "quorum": 3})
    world.train(study)
    waits = [world.site(name).pending / f"{world.hash_of(study)}.json" for name in NAMES]
    until(lambda: all(path.exists() for path in waits), "the study at every site", PATIENCE_S)
    before = ends()
    with deaf(database):
        time.sleep(25.0)  # at most 22.5 seconds lie between two heartbeats of one node, and 20 of a ServerApp
        left = lives(database)
        assert len(left) == len(NAMES) + 1
        assert max(left.values()) < 60 - 17.5
    for one in left:  # each heart was asked at least once, and is asked again within 20 seconds
        until(lambda one=one: lives(database)[one] > 50, f"a heartbeat of {one}", 60.0)
    world.approve(study)
    assert world.trained() == 0, world.said("train")
    assert [sorted(line["sites"]) for line in world.lines(study)] == [[*NAMES]]
    assert ends() == before


# -- the network ------------------------------------------------------------------------------------


def test_a_cut_cable_costs_its_site_some_rounds_and_nobody_else_anything(world: ByHand) -> None:
    study = world.study("cut", training={"rounds": 4, "timeout_s": 25.0, "quorum": 2})
    world.agree(study)
    world.cables[NAMES[0]].bytes_per_s = 20_000.0  # a slow link, all the while
    world.train(study, "--resume")
    asks(world, study)
    world.cables[NAMES[1]].cut()
    try:
        until(
            lambda: any(NAMES[1] in it["missing"] for it in world.lines(study)), "a round without it", 120.0
        )
    finally:
        world.cables[NAMES[1]].mend()
    assert world.trained() == 0, world.said("train")
    world.cables[NAMES[0]].bytes_per_s = None
    done = world.lines(study)
    assert [line["round"] for line in done] == [1, 2, 3, 4]
    assert all({NAMES[0], NAMES[2]} <= {*line["sites"]} for line in done)
    assert {line["missing"][NAMES[1]] for line in done if NAMES[1] in line["missing"]} <= {"late", "dropped"}


def test_a_site_that_sends_half_of_each_reply_costs_nobody_else_anything(world: ByHand) -> None:
    rounds = 12  # some go by without it while its node is being started
    study = world.study("half", training={"rounds": rounds, "timeout_s": 20.0, "quorum": 2})
    world.agree(study)
    world.train(study, "--resume")
    asks(world, study)
    with world.half_replies(NAMES[2]):
        before = len(world.lines(study))
        world.wait_for_round(study, before + 2)
        done = world.lines(study)[before : before + 2]
    assert world.trained() == 0, world.said("train")
    assert all(sorted(line["sites"]) == [*NAMES[:2]] for line in done), done
    assert [line["missing"] for line in done] == [{NAMES[2]: "late"}] * 2
    assert [line["round"] for line in world.lines(study)] == [*range(1, rounds + 1)]


# -- trust: distributed -----------------------------------------------------------------------------


def test_nobody_has_to_be_trusted_with_an_update(world: ByHand) -> None:
    study = world.study(
        "masked",
        privacy={"trust": "distributed"},
        training={"rounds": 2},
        secagg={"protocol": "full", "dropouts": 0},
    )
    with Listener(world.home.superlink_db) as heard:
        world.train(study)
        world.approve(study)
        assert world.trained(400.0) == 0, world.said("train")
    done = world.lines(study)
    assert [line["round"] for line in done] == [1, 2]
    assert all(sorted(line["sites"]) == [*NAMES] for line in done)
    texts = [*heard.texts(), everything(world.home.root)]
    of = world.hash_of(study)  # the SuperLink is one for all tests here, and keeps what other studies left
    assert Kind.STEPPED in kinds(texts, of)
    assert updates(world, texts, of) == []  # not one update that even the coordinator could open alone
    assert leaked(secrets([]), texts) == set()


# -- kill -9, each in the middle of a round ---------------------------------------------------------


def test_kill_9_of_each_part_in_mid_round_loses_nothing(world: ByHand) -> None:
    rounds = 22
    study = world.study("killed", training={"rounds": rounds, "timeout_s": 60.0, "quorum": 1})
    world.agree(study)  # so that every kill hits a site that is at work
    world.train(study, "--resume")

    asks(world, study)
    world.kill(
        f"relay-{NAMES[1]}"
    )  # the SuperNode, and what it started; it will be let in again after a minute
    for number in world.running(f"{NAMES[1]}-relay"):
        os.kill(number, signal.SIGKILL)
    world.relay_up(NAMES[1])

    asks(world, study)
    world.kill(NAMES[0])  # the daemon of a site; its supervisor is this test
    world.site_up(NAMES[0])
    is_back(world, study, NAMES[0])

    asks(world, study)
    os.kill(world.superexec_of(NAMES[2]), signal.SIGKILL)  # Flower does not look after it; the relay does
    is_back(world, study, NAMES[2])

    asks(world, study)
    for number in world.running("flwr-clientapp"):  # the app that relays one message
        os.kill(number, signal.SIGKILL)
    for name in NAMES:
        is_back(world, study, name)

    asks(world, study)
    (superlink,) = world.running("flower-superlink")
    os.kill(superlink, signal.SIGKILL)  # `server up` starts it again
    is_back(world, study, NAMES[2])

    asks(world, study)
    os.kill(world.coordinating(world.record(study)["run"]), signal.SIGKILL)  # `train` has another one started
    is_back(world, study, NAMES[2])

    asks(world, study)
    assert len(world.lines(study)) < rounds, "the study was over before the last kill"
    world.kill("train")
    world.kill("server")  # and with it everything that it watches over, the proxy's workers among them
    until(lambda: not world.running("nginx"), "the proxy to end", 30.0)
    world.server_up()
    world.train(study, "--resume")
    is_back(world, study, NAMES[1])
    assert world.trained(400.0) == 0, world.said("train")

    done = world.lines(study)
    assert [line["round"] for line in done] == [*range(1, rounds + 1)]
    assert all(line["sites"] and len({*line["sites"]}) == len(line["sites"]) for line in done)
    record = world.record(study)
    assert (record["outcome"], record["rounds_done"]) == ("completed", rounds)
    for name in NAMES:
        assert ledger_is_whole(world, name)
        # However often it was asked, a site was charged a round once; what it answered is handed out again.
        spent = charged(world, study, name)
        assert len({*spent}) == len(spent) >= sum(name in line["sites"] for line in done), spent
    assert len(world.running("flower-superlink")) == 1
    assert len(world.running("nginx: master")) == 1


# -- to the bit: last, because the sites rehearse from here on ---------------------------------------


def test_deployed_is_simulated_to_the_bit_where_owners_let_a_seed_make_the_noise(
    world: ByHand, tmp_path: Path
) -> None:
    study = world.study("rehearsed", privacy={"insecure_seed": 11}, training={"rounds": 2, "quorum": 3})
    for name in NAMES:
        home = world.site(name)
        text = home.config.read_text(encoding="utf-8").rstrip("\n")
        assert world.kill(name, signal.SIGTERM) == 0
        # A ledger of real studies is no place for what a rehearsal spends.
        home.state.rename(home.root / "state.real")
        text = text.replace("\nledger: ledger.db", "\nledger: rehearsal.db")
        home.config.write_text(f"{text}\nrehearsal_seed: 11\n", encoding="utf-8")
        world.site_up(name)
    world.train(study)
    world.approve(study)
    assert world.trained() == 0, world.said("train")
    simulated = simulate(study, out=tmp_path / "simulated")
    assert world.record(study)["study_hash"] == simulated.record.study_hash
    assert torch.equal(newest_weights(world.folder(study)), newest_weights(simulated.path))
