"""What was done with a data set, written once: an append-only, hash-chained, signed record that anyone can check.

A reservation is written, durably, before noise is drawn, so that a crash leaves the ledger at or above the truth.
The byte format of an entry is docs/spec/ledger.md. An auditor needs the file and a public key, no torch.

Nothing is imported here: SQLAlchemy costs 0.2 s and is needed by :mod:`~fedgen.ledger.store` and
:mod:`~fedgen.ledger.verify` only.
"""
