"""Databases of our own, SQLite by default and PostgreSQL by URL: how they are opened, and what their errors mean.

Nothing here knows what is kept in one. :mod:`fedgen.policy.store` and :mod:`fedgen.coordinator.state` say so with a
:class:`fedgen.databases.kind.Kind`; :mod:`fedgen.ledger` opens its own, because it promises more, and shares the words.
"""
