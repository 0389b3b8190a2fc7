"""Noise that repeats, for what is explicitly not private: one stream for each site, whoever runs it."""

from __future__ import annotations

from fedgen.crypto.digest import sha256_hex
from fedgen.dpsgd.noise import NoiseSource


def seeded_noise(seed: int, site: str) -> NoiseSource:
    """Return the noise of one site under ``insecure_seed``; the same in a simulation and in a rehearsed deployment."""
    return NoiseSource.insecure(int(sha256_hex(f"{seed}/{site}".encode())[:15], 16))
