"""Keys, signatures, seals and random bytes: the only room that knows the `cryptography` package.

========== ==========================================================================
module     what it holds
========== ==========================================================================
digest     SHA-256 as hex, and its comparison in constant time
derive     HKDF and the domain labels that keep all uses of a key apart
stream     the AES-256-CTR key stream behind noise, sampling and masks
agreement  a secret between two parties for one run, from X25519 and ML-KEM-768
keys       Ed25519 signing keys and HPKE sealing keys, and their files
header     what an envelope says about itself, and what a receiver expects of it
chunks     a large body under AES-256-GCM, chunk by chunk
envelope   sign, seal and open: the one form of every message
replay     one acceptance per message
undumped   a process whose memory is not written down
========== ==========================================================================

Nothing is imported here, so that naming this package costs nothing.
"""
