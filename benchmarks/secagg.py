"""Secure aggregation: what a turn costs a site and the server, against plain addition and against Flower's SecAgg+.

``python benchmarks/secagg.py [--json] [--quick]``

Ten and a hundred sites hold vectors of 653,000 items. One site's encoding, noise and masking is timed, and the server's
opening of a turn; the same sums are taken without masks beside them. Then one secret at a hundred sites is shared and
put together with fedgen's code and with that of flwr 1.41's SecAgg+, taking turns in one process, and a mask is
expanded with both. Figures are process CPU time on one thread: the least over rounds for a site's step, the sum over
all sites of the last turn for the server's.
"""

from __future__ import annotations

import os
import sys
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["OMP_NUM_THREADS"] = "1"
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import numpy as np  # noqa: E402
from common import Target, options, publish  # noqa: E402 - a sibling file, run as a script

from fedgen.crypto.keys import SigningKey  # noqa: E402
from fedgen.crypto.stream import KeyStream  # noqa: E402
from fedgen.secagg import masks, shamir  # noqa: E402
from fedgen.secagg.fixed_point import FixedPoint, plan  # noqa: E402
from fedgen.secagg.plain import PlainSum  # noqa: E402
from fedgen.secagg.server import ServerEnd  # noqa: E402
from fedgen.secagg.site import SiteEnd  # noqa: E402
from fedgen.secagg.terms import Terms, default_threshold  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

DIMENSION = 653_000
STUDY, RUN, WEIGHTS = "11" * 32, "22" * 32, "33" * 32


def least(works: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the least CPU milliseconds of each work, taking turns."""
    best = dict.fromkeys(works, float("inf"))
    for _ in range(rounds):
        for name, work in works.items():
            began = time.process_time()
            work()
            best[name] = min(best[name], time.process_time() - began)
    return {name: 1000 * seconds for name, seconds in best.items()}


class Federation:
    """Sites and a server through setup, with the clock on each step."""

    def __init__(self, sites: int, dropouts: int) -> None:
        self.spent: dict[str, list[float]] = {}
        self.bytes: dict[str, int] = {}
        keys = {f"site-{i:03d}": SigningKey.generate() for i in range(sites)}
        self.terms = Terms(
            study=STUDY,
            run=RUN,
            sites=tuple((name, key.public) for name, key in keys.items()),
            dimension=DIMENSION,
            threshold=default_threshold(sites),
            dropouts=dropouts,
            colluders=1,
        )
        self.point: FixedPoint = plan(
            dimension=DIMENSION,
            clip=1.0,
            bound=25.0,
            multiplier=1.0,
            sites=sites,
            dropouts=dropouts,
            colluders=1,
        )
        self.stream = KeyStream.from_os()
        self.update: NDArray[np.float32] = (
            np.random.default_rng(0).normal(0, 0.01, DIMENSION).astype(np.float32)
        )
        self.ends = {
            name: self.timed("site: new key", SiteEnd, self.terms, name, key) for name, key in keys.items()
        }
        self.server = ServerEnd(self.terms)
        self.round = 0
        self.setup()

    def timed(self, name: str, work: Callable[..., Any], *arguments: Any) -> Any:
        """Return what the work gives; its CPU seconds are kept under the name."""
        began = time.process_time()
        result = work(*arguments)
        self.spent.setdefault(name, []).append(time.process_time() - began)
        return result

    def setup(self) -> None:
        """Agree on keys."""
        for name, end in self.ends.items():
            self.server.admit(name, end.advertise())
        keys = self.server.keys()
        for name, end in self.ends.items():
            self.server.relay(name, self.timed("site: check keys and offer", end.offer, keys))
        for name, end in self.ends.items():
            self.timed("site: accept offers", end.accept, self.server.offered(name))

    def turn(self, drop: int) -> None:
        """Run one turn with so many sites silent, and check the sum against plain addition."""
        number, lacking = self.server.missing()
        for name in lacking:
            self.server.collect(name, self.timed("site: deal", self.ends[name].deal, number))
        self.round += 1
        starts = self.timed("server: begin", self.server.begin, self.round, 1, WEIGHTS)
        plain = PlainSum(self.terms)
        plain.begin(self.round, 1)
        names = list(starts)[drop:]
        for name in names:
            end = self.ends[name]
            self.timed("site: start", end.start, starts[name])
            share = self.timed("site: encode and noise", self.point.share, self.update, self.stream)
            self.timed("plain: add", plain.add, name, share)
            frame = self.timed("site: mask", end.mask, share)
            self.bytes["masked vector"] = len(frame)
            self.timed("server: add", self.server.add, name, frame)
        self.open(names)
        if not np.array_equal(self.timed("server: finish", self.server.finish).values, plain.finish().values):
            raise SystemExit("the masked sum is not the plain one")

    def open(self, names: list[str]) -> None:
        """Ask the survivors, and take their shares."""
        question = self.server.close()
        if question is not None:
            for name in names:
                frame = self.timed("site: agree", self.ends[name].agree, question)
                self.bytes["agree"] = len(frame)
                self.server.agreed(name, frame)
        final = self.server.unmask()
        for name in names:
            frame = self.timed("site: reveal", self.ends[name].reveal, final)
            self.bytes["reveal"] = len(frame)
            self.timed("server: take shares", self.server.revealed, name, frame)

    def figures(self) -> dict[str, float]:
        """Return the least CPU milliseconds of each step of a site, and the sums of those of the server; bytes last."""
        found: dict[str, float] = {}
        for name, seconds in self.spent.items():
            together = name.startswith("server")
            found[name + (" (all)" if together else "")] = round(
                1000 * (sum if together else min)(seconds), 2
            )
        return found | {f"bytes: {name}": size for name, size in self.bytes.items()}

    def encode_and_mask(self) -> float:
        """Return the least milliseconds of a site's encoding, noise and masking together, its next deal included."""
        both = zip(self.spent["site: encode and noise"], self.spent["site: mask"], strict=True)
        return 1000 * min(sum(pair) for pair in both)

    def unmask(self) -> float:
        """Return the milliseconds from the first share that came in to the sum in clear."""
        return 1000 * sum(self.spent["server: take shares"] + self.spent["server: finish"])


def run(sites: int, drop: int, turns: int) -> Federation:
    federation = Federation(sites, drop)
    for number in range(turns):
        if number:
            for name in [name for name in federation.spent if name.startswith("server")]:
                federation.spent[name].clear()
        federation.turn(drop)
    return federation


def peak(sites: int) -> float:
    """Return the most memory a mask of so many peers takes beyond the vector, in vectors."""
    keys = [os.urandom(32) for _ in range(sites)]
    values = np.zeros(DIMENSION, np.uint32)
    tracemalloc.start()
    masks.add_streams(values, keys, [])
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most / values.nbytes


def shamir_rows(rounds: int) -> list[dict[str, Any]]:
    """Return what one secret of 32 bytes costs at a hundred sites, here and in flwr."""
    from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares

    stream, points, threshold = KeyStream.from_os(), list(range(1, 101)), default_threshold(100)
    secret = shamir.element(stream)
    ours = shamir.split(secret, threshold, points, stream)
    theirs = create_shares(shamir.to_bytes(secret), threshold, 100)
    lagrange = shamir.weights(points[:threshold])
    if (
        combine_shares(theirs[:threshold]) != shamir.to_bytes(secret)
        or shamir.combine(lagrange, ours[:threshold]) != secret
    ):
        raise SystemExit("a secret did not come back")
    found = least(
        {
            "share": lambda: shamir.split(secret, threshold, points, stream),
            "flwr share": lambda: create_shares(shamir.to_bytes(secret), threshold, 100),
            "weights of a turn": lambda: shamir.weights(points[:threshold]),
            "combine": lambda: shamir.combine(lagrange, ours[:threshold]),
            "flwr combine": lambda: combine_shares(theirs[:threshold]),
        },
        rounds,
    )
    # What a turn of a hundred sites pays for each secret: one sharing, one opening, a hundredth of the weights.
    mine = found["share"] + found["combine"] + found["weights of a turn"] / 100
    mine_row = {"share_ms": found["share"], "combine_ms": found["combine"], "secret_ms": mine}
    peer = {"share_ms": found["flwr share"], "combine_ms": found["flwr combine"]}
    peer["secret_ms"] = sum(peer.values())
    return [
        {"work": "one secret, 100 sites: fedgen", **mine_row, "weights_ms": found["weights of a turn"]},
        {"work": "one secret, 100 sites: flwr", **peer},
    ]


def mask_rows(rounds: int) -> list[dict[str, Any]]:
    """Return what the expansion of one mask costs, here and in flwr."""
    from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

    values, key = np.zeros(DIMENSION, np.uint32), os.urandom(32)
    found = least(
        {
            "fedgen, AES-256-CTR, added": lambda: masks.add_streams(values, [key], []),
            "flwr, MT19937 of a 32-bit seed": lambda: pseudo_rand_gen(key, 1 << 32, [(DIMENSION,)]),
        },
        rounds,
    )
    return [{"work": f"one mask: {name}", "cpu_ms": round(ms, 3)} for name, ms in found.items()]


def main() -> int:
    """Measure everything."""
    arguments = options(__doc__).parse_args()
    ten = run(10, 1, 3 if arguments.quick else 8)
    hundred = run(100, 10, 1 if arguments.quick else 2)
    secrets = shamir_rows(1 if arguments.quick else 5)
    small, large = ten.figures(), hundred.figures()
    rows: list[dict[str, Any]] = [
        {"work": step, "10 sites, 1 dropped": small.get(step), "100 sites, 10 dropped": large.get(step)}
        for step in large
    ]
    rows += [*secrets, *mask_rows(5 if arguments.quick else 20)]
    vectors = peak(99)
    rows.append({"work": "memory of masking with 99 peers, in vectors", "peak": round(vectors, 3)})
    wire = max(
        ten.bytes["masked vector"] + ten.bytes["reveal"],
        hundred.bytes["masked vector"] + hundred.bytes["reveal"],
    )
    faster = secrets[1]["secret_ms"] / secrets[0]["secret_ms"]
    plain = min(hundred.spent["plain: add"])
    server_add = min(hundred.spent["server: add"])
    rows.append(
        {"work": "server: add one vector of 100, over plain addition", "ratio": round(server_add / plain, 2)}
    )
    unmask_s = round(hundred.unmask() / 1000, 3)
    ten_ms, hundred_ms = round(ten.encode_and_mask(), 1), round(hundred.encode_and_mask(), 1)
    over = round(wire / (4 * DIMENSION), 4)
    targets = [
        Target("CPU of a site's encode and mask, 10 sites (ms), at most", 100, ten_ms, at_most=True),
        Target("CPU of a site's encode and mask, 100 sites (ms), at most", 150, hundred_ms, at_most=True),
        Target("CPU to unmask 100 sites, 10 dropped (s), at most", 1.0, unmask_s, at_most=True),
        Target(
            "memory of masking beyond the vector (vectors), at most", 1.0, round(vectors, 3), at_most=True
        ),
        Target("bytes a site sends over a float32 update, at most", 1.05, over, at_most=True),
        Target("flwr's SecAgg+ over fedgen, per secret, 100 sites, at least", 30, round(faster, 1)),
    ]
    return publish("secagg", rows, targets, as_json=arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
