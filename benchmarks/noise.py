"""Noise: normals and integers from AES-256-CTR beside torch's and NumPy's own generators, one thread.

``python benchmarks/noise.py [--json] [--quick]``
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

os.environ["OMP_NUM_THREADS"] = "1"
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import numpy as np  # noqa: E402 - after the number of threads is set
import torch  # noqa: E402
from common import Target, options, publish  # noqa: E402 - a sibling file, run as a script

from fedgen.crypto.stream import KeyStream  # noqa: E402
from fedgen.dpsgd.noise import NoiseSource  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 652_824  # the parameters of the MLP VAE 784-400-20
SMALL = 25_450  # those of the digits VAE


def least(call: Callable[[], object], rounds: int) -> float:
    """Return the least CPU milliseconds of ``call``."""
    best = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        call()
        best = min(best, time.process_time() - began)
    return 1000 * best


def _calls(
    source: NoiseSource, stream: KeyStream, rng: np.random.Generator, size: int
) -> dict[str, Callable[[], object]]:
    """Return every source at one size."""
    out, words = torch.empty(size), np.empty(size, np.uint32)
    return {
        "AES-256-CTR key stream, 4 bytes each": lambda: stream.fill(words.data),
        "fedgen normals (AES, 53-bit radius)": lambda: source.fill_normal_(out, 1.0),
        "torch.randn (not a CSPRNG)": lambda: torch.randn(size),
        "numpy standard_normal, SFC64 (not a CSPRNG)": lambda: rng.standard_normal(size, np.float32),
        "fedgen Skellam, variance 1e6": lambda: source.skellam(size, 1e6),
        "fedgen discrete Gaussian, variance 1e6": lambda: source.discrete_gaussian(size, 1e6),
    }


def main() -> int:
    """Time every source at two sizes."""
    arguments = options(__doc__).parse_args()
    torch.set_num_threads(1)
    rounds = 20 if arguments.quick else 100
    source, stream, rng = NoiseSource.secure(), KeyStream.from_os(), np.random.Generator(np.random.SFC64(0))
    rows, found = [], {}
    for size in (SIZE, SMALL):
        calls = _calls(source, stream, rng, size)
        for name, call in calls.items():
            call()
            found[name, size] = least(
                call, max(3, rounds // 10) if "Skellam" in name or "discrete" in name else rounds
            )
            rows.append(
                {
                    "source": name,
                    "samples": size,
                    "cpu_ms": round(found[name, size], 3),
                    "million_per_s": round(size / found[name, size] / 1000, 1),
                }
            )
    ratio = found["fedgen normals (AES, 53-bit radius)", SIZE] / found["torch.randn (not a CSPRNG)", SIZE]
    targets = [Target("secure normals over torch.randn, CPU, at most", 1.5, round(ratio, 3), at_most=True)]
    return publish("noise", rows, targets, as_json=arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
