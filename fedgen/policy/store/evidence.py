"""What the store keeps beside events: packs, rounds, artefacts and their lineage, and what became of erasures."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from fedgen.errors import DataError
from fedgen.policy.store.database import driver_rows, insert_many

if TYPE_CHECKING:
    import sqlalchemy as sa

    from fedgen.policy.store.database import Database


class Evidence:
    """The part of :class:`~fedgen.policy.store.store.ConsentStore` that writes down what was decided and done."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def now(self) -> int:
        """Return the store's time."""
        raise NotImplementedError

    def put_pack(
        self,
        pack_id: str,
        version: str,
        body: str,
        *,
        in_force_from: int | None = None,
        in_force_to: int | None = None,
    ) -> str:
        """Keep a pack as it was used, and return its SHA-256; a version never changes.

        Raises:
            DataError: The version is there with another content.
        """
        digest = hashlib.sha256(body.encode()).hexdigest()
        with self._db.writing() as connection:
            query = "SELECT sha256 FROM policy_pack WHERE pack_id = ? AND version = ?"
            found = driver_rows(connection, query, (pack_id, version))
            if found and found[0][0] != digest:
                hint = "give it a new version"
                raise DataError(
                    "this version of the pack has another content", where=pack_id, key=version, hint=hint
                )
            if not found:
                columns = (
                    "pack_id",
                    "version",
                    "in_force_from",
                    "in_force_to",
                    "sha256",
                    "body",
                    "recorded_at",
                )
                row = (pack_id, version, in_force_from, in_force_to, digest, body, self.now())
                insert_many(connection, "policy_pack", columns, [row])
        return digest

    def pack(self, pack_id: str, version: str) -> str | None:
        """Return a pack as it was used."""
        with self._db.reading() as connection:
            query = "SELECT body FROM policy_pack WHERE pack_id = ? AND version = ?"
            found = driver_rows(connection, query, (pack_id, version))
        return str(found[0][0]) if found else None

    def put_round(
        self,
        *,
        run_uid: str,
        round_number: int,
        attempt: int,
        client_ref: str,
        known_at: int,
        store_head_seq: int,
        mask_sha256: str,
        summary: dict[str, Any],
    ) -> None:
        """Keep the summary of a round's decisions (POLICY 2.2), once for each attempt; the same again is nothing new.

        Raises:
            DataError: The round is there with another summary.
        """
        body = json.dumps(summary, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        with self._db.writing() as connection:
            query = "SELECT body FROM decision_round WHERE run_uid = ? AND round = ? AND attempt = ? AND client_ref = ?"
            found = driver_rows(connection, query, (run_uid, round_number, attempt, client_ref))
            if found and found[0][0] != body:
                raise DataError(
                    "the round was decided otherwise before", where=run_uid, key=str(round_number)
                )
            if found:
                return
            columns = (
                "seq", "run_uid", "round", "attempt", "client_ref", "known_at", "store_head_seq", "mask_sha256", "body",
                "recorded_at",
            )  # fmt: skip
            row = (
                next_number(connection, "decision_round"), run_uid, round_number, attempt, client_ref, known_at,
                store_head_seq, mask_sha256, body, self.now(),
            )  # fmt: skip
            insert_many(connection, "decision_round", columns, [row])

    def rounds(self, run_uid: str) -> list[dict[str, Any]]:
        """Return the summaries of a run, in the order in which they were decided."""
        with self._db.reading() as connection:
            query = "SELECT body FROM decision_round WHERE run_uid = ? ORDER BY seq"
            return [json.loads(row[0]) for row in driver_rows(connection, query, (run_uid,))]

    def put_artefact(
        self,
        sha256: str,
        kind: str,
        *,
        created_at: int,
        retain_until: int | None,
        parents: tuple[str, ...] = (),
        rounds: tuple[str, ...] = (),
    ) -> None:
        """Keep an artefact with what it was made from; the same again is nothing new."""
        with self._db.writing() as connection:
            if driver_rows(connection, "SELECT 1 FROM artefact WHERE sha256 = ?", (sha256,)):
                return
            columns = ("sha256", "kind", "created_at", "retain_until", "state")
            insert_many(connection, "artefact", columns, [(sha256, kind, created_at, retain_until, "live")])
            first = next_number(connection, "artefact_lineage")
            lines = [(parent, None) for parent in parents] + [(None, uid) for uid in rounds]
            rows = [(n, sha256, parent, uid) for n, (parent, uid) in enumerate(lines, first)]
            insert_many(
                connection, "artefact_lineage", ("seq", "child", "parent_artefact", "round_uid"), rows
            )

    def set_artefact(self, sha256: str, *, state: str, anonymity_ref: str | None = None) -> None:
        """Say what became of an artefact: ``live``, ``quarantined``, ``withdrawn`` or ``erased``."""
        with self._db.writing() as connection:
            mark = "%s" if self._db.postgresql else "?"
            statement = (
                "UPDATE artefact SET state = ?, anonymity_ref = COALESCE(?, anonymity_ref) WHERE sha256 = ?"
            )
            done = connection.exec_driver_sql(statement.replace("?", mark), (state, anonymity_ref, sha256))
            if done.rowcount != 1:
                raise DataError("no such artefact", key=sha256)

    def artefacts(self) -> list[dict[str, Any]]:
        """Return all artefacts, oldest first."""
        columns = ("sha256", "kind", "created_at", "retain_until", "anonymity_ref", "state")
        with self._db.reading() as connection:
            query = f"SELECT {', '.join(columns)} FROM artefact ORDER BY created_at, sha256"  # noqa: S608 -- names are constants
            return [dict(zip(columns, row, strict=True)) for row in driver_rows(connection, query, ())]

    def lineage(self, sha256: str) -> set[str]:
        """Return the rounds that an artefact goes back to, through all its ancestors."""
        rounds: set[str] = set()
        seen, waiting = set(), [sha256]
        with self._db.reading() as connection:
            query = "SELECT parent_artefact, round_uid FROM artefact_lineage WHERE child = ?"
            while waiting:
                child = waiting.pop()
                if child in seen:
                    continue
                seen.add(child)
                for parent, uid in driver_rows(connection, query, (child,)):
                    if uid is not None:
                        rounds.add(uid)
                    if parent is not None:
                        waiting.append(parent)
        return rounds

    def open_task(self, target: str, reason_code: str, *, due: int | None = None) -> int:
        """Write down that something must be erased or withdrawn, and return the task's number."""
        with self._db.writing() as connection:
            return self._open_task(connection, target, reason_code, self.now(), due)

    def close_task(self, task: int, *, method: str, evidence: str) -> None:
        """Write down what was done, once.

        Raises:
            DataError: There is no such task, or it was closed before.
        """
        with self._db.writing() as connection:
            self._close_task(connection, task, self.now(), method, evidence)

    def tasks(self, *, open_only: bool = False) -> list[dict[str, Any]]:
        """Return erasure tasks, oldest first."""
        columns = ("seq", "target", "reason_code", "opened", "due", "done", "method", "evidence")
        which = "WHERE done IS NULL" if open_only else ""
        with self._db.reading() as connection:
            query = f"SELECT {', '.join(columns)} FROM erasure_task {which} ORDER BY seq"  # noqa: S608 -- names are constants
            return [dict(zip(columns, row, strict=True)) for row in driver_rows(connection, query, ())]

    def _open_task(
        self, connection: sa.Connection, target: str, reason: str, at: int, due: int | None
    ) -> int:
        number = next_number(connection, "erasure_task")
        columns = ("seq", "target", "reason_code", "opened", "due")
        insert_many(connection, "erasure_task", columns, [(number, target, reason, at, due)])
        return number

    def _close_task(self, connection: sa.Connection, task: int, at: int, method: str, evidence: str) -> None:
        mark = "%s" if self._db.postgresql else "?"
        statement = "UPDATE erasure_task SET done = ?, method = ?, evidence = ? WHERE seq = ?".replace(
            "?", mark
        )
        if connection.exec_driver_sql(statement, (at, method, evidence, task)).rowcount != 1:
            raise DataError("no such erasure task", key=str(task))


def next_number(connection: sa.Connection, table: str) -> int:
    """Return the number of the next row of a table."""
    return int(driver_rows(connection, f"SELECT COALESCE(max(seq), 0) FROM {table}", ())[0][0]) + 1  # noqa: S608 -- names are constants
