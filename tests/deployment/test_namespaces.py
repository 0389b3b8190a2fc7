"""A coordinator and its sites in networks of their own, with wires between them, and firewalls around the sites.

Beside ``test_by_hand.py``, whose machines share one network: here a site has an address that the world could try, a
wire that can lose its other end, and a capture that misses nothing. One deployment serves every test of this file, in
the order in which they stand: the captures grow.
"""

from __future__ import annotations

import signal
import socket
import ssl
import time
from contextlib import closing
from http.client import HTTPSConnection
from typing import TYPE_CHECKING

import pytest
from support.apart import apart
from support.by_hand import NAMES as MANY
from support.by_hand import PATIENCE_S
from support.capture import Capture, data_in, records
from support.deployed import until
from support.listening import Listener
from support.looking import leaked, secrets, updates
from support.namespaces import HUB

from fedgen.crypto.header import MAGIC

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.apart import Apart
    from support.namespaces import Network

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.needs("nginx", "ip", "nft", "network namespaces"),
]
NAMES = MANY[:2]
STUDY = "confidential-study"
LOOPBACK = ("127.0.0.1", "::1")


@pytest.fixture(scope="module")
def world() -> Iterator[Apart]:
    with apart(NAMES) as made:
        yield made


@pytest.fixture(scope="module")
def first(world: Apart) -> tuple[Path, list[bytes]]:
    """A study over all sites, and every update of it, opened with the coordinator's own key."""
    study = world.study(STUDY, training={"rounds": 2, "quorum": 2})
    with Listener(world.home.superlink_db) as kept:
        world.train(study)
        world.approve(study)
        assert world.trained() == 0, world.said("train")
    return study, updates(world, kept.texts())


def sought(world: Apart, study: Path, clear: list[bytes]) -> list[bytes]:
    """Return what must be on no wire: updates and metrics, people, names of study and sites, Flower's own routes."""
    digest = world.hash_of(study)
    names = [STUDY.encode(), *(name.encode() for name in NAMES), digest.encode(), bytes.fromhex(digest)]
    return [*secrets(clear), *names, MAGIC, b"/v1/fleet"]


def passed(capture: Capture) -> list[bytes]:
    """Return every packet, and every stream put together again, where nothing can hide between two packets."""
    return [*capture.packets, *(said for _, said in capture.streams())]


# -- a study ----------------------------------------------------------------------------------------


def test_a_study_over_networks_that_only_call_out(world: Apart, first: tuple[Path, list[bytes]]) -> None:
    study, _ = first
    done = world.lines(study)
    assert [(line["round"], sorted(line["sites"])) for line in done] == [(1, [*NAMES]), (2, [*NAMES])]
    assert world.record(study)["outcome"] == "completed"
    assert (world.folder(study) / "report.html").is_file()


# -- who connects to whom ---------------------------------------------------------------------------


def test_a_site_calls_the_proxy_and_nobody_else_and_nobody_calls_a_site(
    world: Apart, first: tuple[Path, list[bytes]]
) -> None:
    """Each site has a route to everywhere: whatever phones home, or asks for a name, would be on its wire."""
    for name, capture in world.captures.items():
        assert capture.lost() == 0
        assert capture.opened() == {(world.net.address(name), HUB, world.outside)}
        assert capture.kinds() <= {"tcp", "arp", "icmpv6"}, capture.kinds()


def test_nothing_of_a_site_can_be_reached(world: Apart, first: tuple[Path, list[bytes]]) -> None:
    for name in NAMES:
        network, address = world.net.networks[name], world.net.address(name)
        waiting = network.listening()
        assert waiting, "the relay waits on loopback: this looked into the wrong network"
        assert {where for where, _ in waiting} <= {*LOOPBACK}, waiting
        for _, port in waiting:
            assert not world.net.hub.answers(address, port)


def test_and_the_firewall_keeps_out_what_would_answer(world: Apart) -> None:
    """A careless server, which waits for the world, is held back at a site; the control is the same server without."""
    site, control = world.net.networks[NAMES[0]], world.net.join("control")
    for network, behind in ((site, True), (control, False)):
        address = world.net.address("control" if network is control else NAMES[0])
        with network.do(lambda: socket.create_server(("0.0.0.0", 0))) as careless:  # noqa: S104
            port = careless.getsockname()[1]
            assert ("0.0.0.0", port) in network.listening()  # noqa: S104
            assert world.net.hub.answers(address, port) is not behind
            network.firewall()
            assert not world.net.hub.answers(address, port)


def test_a_site_reaches_the_proxy_and_no_other_port_of_the_coordinator(world: Apart) -> None:
    proxy, superlink = (HUB, world.outside), ("127.0.0.1", world.inside)
    assert world.net.hub.listening() == {proxy, superlink}
    for network in (world.net.networks[name] for name in NAMES):
        assert network.answers(*proxy)
        assert not network.answers(HUB, world.inside)
    assert world.net.hub.answers(*superlink)  # the control: where it listens, it answers


def test_at_the_proxy_a_site_finds_no_way_to_what_ships_code(world: Apart) -> None:
    """Flower's SuperLink has one port for everything; what reaches Control or Runtime could run code at every site."""
    context = ssl.create_default_context(cafile=str(world.home.ca.certificate))

    def status(network: Network, address: tuple[str, int], method: str, path: str) -> int:
        def ask() -> int:
            connection = HTTPSConnection(*address, timeout=20, context=context)
            with closing(connection):
                connection.request(method, path, body=b"" if method == "POST" else None)
                return connection.getresponse().status

        return network.do(ask)

    forbidden = ["/v1/control/start-run", "/v1/control/list-runs", "/v1/runtime/acquire-task"]
    site = world.net.networks[NAMES[1]]
    proxy, superlink = (HUB, world.outside), ("127.0.0.1", world.inside)
    assert [status(site, proxy, "POST", path) for path in forbidden] == [404, 404, 404]
    # Two controls: the proxy passes on what is meant for sites, and the SuperLink knows all of these.
    assert status(site, proxy, "GET", "/health") == 200
    assert status(site, proxy, "POST", "/v1/fleet/pull-messages") not in {404, 405, 502}
    assert all(status(world.net.hub, superlink, "POST", path) != 404 for path in forbidden)


# -- what is on the wire ----------------------------------------------------------------------------


def test_a_capture_of_every_packet_holds_tls_and_nothing_in_clear(
    world: Apart, first: tuple[Path, list[bytes]]
) -> None:
    study, clear = first
    assert len(clear) >= 4, "the listener missed updates: it proves nothing"
    for name, capture in world.captures.items():
        assert capture.lost() == 0
        streams = capture.streams()
        assert streams
        sent = {True: 0, False: 0}
        for flow, said in streams:  # each from its first byte to its last
            sent[flow[0] == world.net.address(name)] += data_in(said)
        assert sent[True] > sum(len(it) for it in clear) // len(NAMES), (name, sent)
        assert sent[False] > 10_000, (name, sent)
        assert leaked(sought(world, study, clear), passed(capture)) == set()


def test_the_same_look_finds_what_is_sent_without_tls(world: Apart, first: tuple[Path, list[bytes]]) -> None:
    """The negative control: the same things over a wire like theirs, by a plain connection, cut at odd places."""
    study, clear = first
    planted = sought(world, study, clear)
    text = b"".join(planted)
    network = world.net.join("plain")
    with Capture(network) as capture:
        with world.net.hub.do(lambda: socket.create_server((HUB, 0))) as server:
            port = server.getsockname()[1]
            with network.do(lambda: socket.create_connection((HUB, port))) as site:
                site.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                far, _ = server.accept()
                with far:
                    for at in range(0, len(text), 777):
                        site.sendall(text[at : at + 777])
                    site.shutdown(socket.SHUT_WR)
                    while far.recv(65536):
                        pass
        until(lambda: any(said == text for _, said in capture.streams()), "the last packet", 20.0)
    assert leaked(planted, passed(capture)) == {*planted}
    assert leaked(planted, capture.packets) < {*planted}, (
        "what lies across two packets is found in the stream"
    )
    with pytest.raises(ValueError, match="no TLS"):
        records(next(said for flow, said in capture.streams() if flow[3] == port))


# -- the network ------------------------------------------------------------------------------------


def at_work(world: Apart, study: Path) -> None:
    """Wait until a round is on its way: a process of a relay works on it."""
    world.wait_for_round(study, 1)
    train = world.processes["train"]
    for goes_on in (False, True):
        until(
            lambda goes_on=goes_on: (
                bool(world.running("flwr-clientapp")) is goes_on or train.poll() is not None
            ),
            "the next round to be on its way",
            PATIENCE_S,
        )
    assert train.poll() is None, world.said("train")


def is_in(world: Apart, study: Path, where: str, name: str) -> None:
    """Wait until a round that is closed after this instant has a site among those that answered or did not."""
    before = len(world.lines(study))
    train = world.processes["train"]

    def seen() -> bool:
        found = any(name in line[where] for line in world.lines(study)[before:])
        assert found or train.poll() is None, world.said("train")
        return found

    until(seen, f"{name} in {where}", PATIENCE_S)


def test_a_wire_that_dies_in_mid_round_costs_its_site_some_rounds_and_it_comes_back(world: Apart) -> None:
    """Its far end is gone: no packet arrives, so that nothing tells either side that the other is not there."""
    cut, other = NAMES
    study = world.study("cut", training={"rounds": 200, "timeout_s": 45.0, "quorum": 1})
    world.agree(study)
    world.train(study, "--resume")
    at_work(world, study)
    world.net.cut(cut)
    try:
        time.sleep(1)  # what was on its way when the wire died
        before = len(world.captures[cut].packets)
        is_in(world, study, "missing", cut)
        silent = world.captures[cut].segments(before)
    finally:
        world.net.mend(cut)
    assert not [it for it in silent if it.flow[0] == HUB or it.resets]
    is_in(world, study, "sites", cut)
    world.processes["train"].send_signal(signal.SIGINT)
    assert world.trained() == 130, world.said("train")
    done = world.lines(study)
    assert [line["round"] for line in done] == [*range(1, len(done) + 1)]
    late = [line for line in done if cut in line["missing"]]
    assert late
    assert all(line["sites"] == [other] and line["missing"][cut] in {"late", "dropped"} for line in late)


@pytest.mark.needs("tc", "slow network links")
def test_over_a_slow_wire_a_study_is_whole(world: Apart) -> None:
    study = world.study("slow", training={"rounds": 2, "timeout_s": 120.0, "quorum": 2})
    world.net.slow(NAMES[0])
    try:
        world.train(study)
        world.approve(study)
        assert world.trained() == 0, world.said("train")
        held_up = world.net.held_up(NAMES[0])
    finally:
        world.net.quick(NAMES[0])
    assert held_up > 0, "the wire was never too slow: this proves nothing"
    assert [sorted(line["sites"]) for line in world.lines(study)] == [[*NAMES]] * 2
