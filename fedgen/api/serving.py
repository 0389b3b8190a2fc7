"""A deployed site: composed from its home, checked before it listens, and served until it is told to stop.

Whatever is missing, open to others, damaged or out of step means that nothing is served, with one line that says what.
"""

from __future__ import annotations

import fcntl
import grp
import os
import pwd
import socket
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from fedgen.enrolment.places import check_folder, make_folder
from fedgen.errors import Code, ConfigError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from fedgen.config.site import SiteSpec
    from fedgen.data.encoded import EncodedTable
    from fedgen.enrolment.site_home import SiteHome
    from fedgen.ledger.address import Place
    from fedgen.ledger.store import Ledger
    from fedgen.policy.consent import ConsentLog
    from fedgen.policy.store import ConsentStore
    from fedgen.schema.table import Schema
    from fedgen.site.approval_book import ApprovalBook
    from fedgen.site.monitor import Site
    from fedgen.site.policy import PolicyDesk
    from fedgen.site.rules import SiteRules
    from fedgen.site.uses import UseBook

LOCK: Final = ".serving.lock"
DATASET: Final = "dataset.json"
CHECKPOINT: Final = "ledger.checkpoint"
_TRIES: Final = 10
_WARM_ROWS: Final = 64


@dataclass(frozen=True, slots=True)
class Serving:
    """A site that is ready to be served.

    Attributes:
        site: It.
        name: Its name.
        rows: How many rows it has now; for its own owner.
    """

    site: Site
    name: str
    rows: int


@contextmanager
def serving_alone(home: SiteHome) -> Iterator[int]:
    """Hold a home for the one daemon that may serve it; yields the descriptor of the lock.

    Raises:
        ConfigError: Another daemon serves it, or the home is missing or open to others.
    """
    check_folder(home.root)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(home.root / LOCK, flags, 0o600)
    try:
        for left in reversed(range(_TRIES)):  # `fedgen site status` looks for an instant
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not left:
                    raise ConfigError(
                        "a daemon serves this site already", where=home.root, hint="stop it first"
                    ) from None
                time.sleep(0.1)
        yield descriptor
    finally:
        os.close(descriptor)


def served_by(home: SiteHome) -> int | None:
    """Return the process that serves a home, 0 while it gets ready, or None where there is none."""
    try:
        descriptor = os.open(home.root / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(descriptor, 32, 0).strip()
        return int(text) if text.isdigit() else 0
    else:
        return None
    finally:
        os.close(descriptor)


@contextmanager
def composed(home: SiteHome) -> Iterator[Serving]:
    """Compose the site of a home for the length of the block; everything that can be checked is checked here.

    Raises:
        ConfigError: A file, folder, key, source, schema or consent log is missing, wrong or open to others.
        DataError: A row does not fit the schema.
        IntegrityError: The ledger, the invitation or a key is not what it must be.
        Refused: The invitation is not for this site, or expired.
    """
    from fedgen.api.bench import Bench
    from fedgen.api.owners_word import OwnersWord
    from fedgen.api.seeds import seeded_noise
    from fedgen.api.site_data import SiteTable, dataset_of
    from fedgen.dpsgd.noise import NoiseSource
    from fedgen.site.account import Account
    from fedgen.site.incidents import IncidentLog
    from fedgen.site.memory import Memory
    from fedgen.site.monitor import Site
    from fedgen.site.standing import StandingFile

    spec, coordinator, identity = home.spec(), home.coordinator(), home.identity()
    for folder in (home.keys, home.approvals, home.pending, home.state):
        make_folder(folder)
    if (home.root / spec.keys).resolve() != home.keys.resolve():
        raise ConfigError(
            "the keys of a site are kept in its home", where=home.config, key="keys", hint="write: keys"
        )
    if not spec.durable:
        raise ConfigError("only a simulation may do without the disk", where=home.config, key="durable")
    schema = schema_of(home, spec)
    rules = rules_of(spec, schema.digest())
    memory = Memory(home.state / "invitation", home.state / "answer", released=home.state / "released")
    table = SiteTable(
        spec.source,
        schema,
        base=home.root,
        mark=home.state / "rows",
        changed=memory.forget_rows,
        opens=lambda: home.source_address(spec),
    )
    rows = table()
    with ExitStack() as open_:
        consent, desk, uses = _consent(home, spec, rows, open_)
        ledger = open_.enter_context(opened_ledger(home, spec))
        word = OwnersWord(home, approval_book(home, spec.name), spec, coordinator.coordinator)
        account = Account(
            _lending(ledger),
            dataset_of(home.state / DATASET, ledger),
            rules,
            checkpoint=home.state / CHECKPOINT,
        )
        site = Site(
            rules=rules,
            identity=identity,
            coordinator=coordinator.coordinator_key,
            table=table,
            consent=consent,
            account=account,
            bench=Bench().lend,
            noise=NoiseSource.secure()
            if spec.rehearsal_seed is None
            else seeded_noise(spec.rehearsal_seed, spec.name),
            clock=lambda _round: datetime.now(UTC),
            incidents=IncidentLog(home.state / "incidents.jsonl"),
            memory=memory,
            uses=uses,
            policy=desk,
            peers=lambda: {**home.peers(), spec.name: identity.public},
            standing=lambda run: StandingFile(home.state / f"standing-{run}.json", run),
            approvals=word,
            sealing=word.sealing_key,
        )
        warm(schema)
        yield Serving(site, spec.name, len(rows))


def approval_book(home: SiteHome, name: str) -> ApprovalBook:
    """Return the decisions of a site's owner."""
    from fedgen.site.approval_book import ApprovalBook

    return ApprovalBook(home.approvals, home.pending, name, home.identity().verify_key)


def schema_of(home: SiteHome, spec: SiteSpec) -> Schema:
    """Return the schema that a site's file names, or its builtin source's own.

    Raises:
        ConfigError: There is none, or it is wrong.
    """
    from fedgen.schema.table import load_schema

    if spec.schema_file is not None:
        return load_schema(home.root / spec.schema_file)
    if spec.source.startswith("builtin:"):
        from fedgen.data.builtin import builtin_schema

        return builtin_schema(spec.source.removeprefix("builtin:"))
    hint = "`fedgen init --from FILE` drafts one; all sites of a study have the same"
    raise ConfigError("a schema is needed", where=home.config, key="schema", hint=hint)


def rules_of(spec: SiteSpec, schema_digest: str) -> SiteRules:
    """Return a deployed site's own rules."""
    from fedgen.site.rules import SiteRules

    packs = spec.policy is not None and bool(spec.policy.packs)
    return SiteRules(
        name=spec.name,
        min_cohort=spec.min_cohort,
        consent_required=spec.consent is not None or packs,
        epsilon_per_study=spec.ceilings.epsilon_per_study,
        epsilon_per_year=spec.ceilings.epsilon_per_year,
        epsilon_life=spec.ceilings.epsilon_life,
        delta=spec.ceilings.delta,
        rehearsal_seed=spec.rehearsal_seed,
        schema_digest=schema_digest,
    )


def ledger_place(home: SiteHome, spec: SiteSpec) -> Place:
    """Return where the ledger lies: a path in the home unless it is absolute, or a server."""
    from pathlib import Path

    from fedgen.ledger.address import default_name, place_of

    place = place_of(spec.ledger)
    if isinstance(place, Path):
        return home.root / place
    return place if place.ledger is not None else place.named(default_name(origin_of(spec)))


def origin_of(spec: SiteSpec) -> str:
    """Return the name of a site's ledger; that of rehearsals is another one, for what it says of ε holds for nobody."""
    return f"fedgen/{'site' if spec.rehearsal_seed is None else 'rehearsal'}/{spec.name}"


@contextmanager
def opened_ledger(home: SiteHome, spec: SiteSpec) -> Iterator[Ledger]:
    """Verify the ledger against its checkpoint, and open it; the first time, begin it.

    Guarantees:
        - What a rehearsal spent never stands in a ledger of real studies, nor theirs in one of rehearsals.

    Raises:
        ConfigError: It is a ledger of rehearsals and the site does not rehearse, or the other way round.
        IntegrityError: It does not verify, was rolled back, or is gone.
    """
    from fedgen.ledger.checkpoint import Checkpoint
    from fedgen.ledger.store import Ledger
    from fedgen.ledger.verify import verify

    place, key = ledger_place(home, spec), home.ledger_signing_key()
    kept = home.state / CHECKPOINT
    begun = kept.exists() or (home.state / DATASET).exists()
    if begun:
        try:
            report = verify(
                place, key.verify_key, checkpoint=Checkpoint.read(kept) if kept.exists() else None
            )
        except ConfigError as error:
            raise IntegrityError(
                f"the ledger was there and cannot be read: {error.what}",
                code=Code.LEDGER,
                where=str(place),
                hint="restore it; what was spent must not be forgotten",
            ) from error
        if not report.ok:
            raise IntegrityError(
                f"the ledger does not verify: {report.problems[0]}",
                code=Code.LEDGER,
                where=str(place),
                hint="run: fedgen ledger verify",
            )
        _check_origin(home, spec, report.origin)
    with Ledger.open(place, origin=origin_of(spec), signing_key=key, durable=True) as ledger:
        ledger.keep_checkpoint(kept)
        yield ledger


def _check_origin(home: SiteHome, spec: SiteSpec, origin: str | None) -> None:
    """Refuse a home that has served real studies and is to rehearse, and one that has rehearsed and is to be real."""
    if origin == origin_of(
        spec.model_copy(update={"rehearsal_seed": 1 if spec.rehearsal_seed is None else None})
    ):
        real = spec.rehearsal_seed is not None
        what = "this home has served real studies" if real else "this home has rehearsed: its noise was known"
        hint = "rehearse in a home of its own" if real else "begin a home of its own for real studies"
        raise ConfigError(what, where=home.config, key="rehearsal_seed", hint=hint)


def _lending(ledger: Ledger) -> Callable[[], AbstractContextManager[Ledger]]:
    @contextmanager
    def lend() -> Iterator[Ledger]:
        yield ledger

    return lend


def _consent(
    home: SiteHome, spec: SiteSpec, rows: EncodedTable, open_: ExitStack
) -> tuple[Callable[[], ConsentLog] | None, PolicyDesk | None, UseBook | None]:
    """Return who decides about rows: a log, or packs over a store; and who writes down what was decided."""
    if (spec.consent is not None or (spec.policy and spec.policy.packs)) and rows.subjects is None:
        raise ConfigError(
            "the schema does not say which column names the person, so nobody's consent can be looked up",
            where=home.config,
            key="schema",
            hint="name the column as `subject` in the schema",
        )
    if spec.policy is not None and spec.policy.packs:
        desk, uses = _packs(home, spec, open_)
        return None, desk, uses
    if spec.consent is None:
        return None, None, None
    from fedgen.api.sites import SharedConsent

    log = SharedConsent(home.root / spec.consent)
    log()
    return log, None, None


def _packs(home: SiteHome, spec: SiteSpec, open_: ExitStack) -> tuple[PolicyDesk, UseBook]:
    """Return the site's packs over its consent store, which must be there."""
    from fedgen.api.consents import open_store
    from fedgen.api.rights import file_of
    from fedgen.config.policy import Stated
    from fedgen.crypto.keys import VerifyKey
    from fedgen.policy.packs import SHIPPED, load_packs
    from fedgen.site.policy import PolicyDesk
    from fedgen.site.uses import UseBook

    policy = spec.policy
    if policy is None or policy.store is None:
        raise ConfigError("packs decide from a consent store", where=home.config, key="policy.store")
    names = [name if name in SHIPPED else home.root / name for name in policy.packs]
    packs = load_packs(names, [VerifyKey(bytes.fromhex(text)) for text in policy.pack_keys or ()])
    address = policy.store if "://" in policy.store else home.root / policy.store
    key = None if policy.store_key is None else home.root / policy.store_key
    store = open_.enter_context(open_store(address, key=key))
    file = file_of(address)
    used = home.state / "used" if file is None else file.with_name(f"{file.name}.d") / "used"

    @contextmanager
    def lend() -> Iterator[ConsentStore]:
        yield store

    stated = Stated(records=policy.records, documents=policy.documents)
    desk = PolicyDesk(lend, packs, stated, head=home.state / "store-head")
    return desk, UseBook(store, used, spec.name)


def warm(schema: Schema) -> None:
    """Load what a first round would: the accountant, torch, a model of this schema, one step of it.

    On no row: the codes are zeros, and what comes out is thrown away.
    """
    import numpy as np

    from fedgen.api.bench import new_learner
    from fedgen.config.plan import plan_of
    from fedgen.config.resolve import resolve
    from fedgen.config.study import parse_study
    from fedgen.crypto.keys import SealingKey, seal
    from fedgen.dpsgd.noise import NoiseSource
    from fedgen.schema.codec import Codec
    from fedgen.site.admit import Admission
    from fedgen.site.train import Rows, compute_update

    study = parse_study(
        {
            "study": "warm-up",
            "data": {"source": "csv://none.csv", "schema": "none.yaml", "sites": {"count": 1}},
            "model": {"name": "tabular-vae" if schema.kind == "table" else "image-vae"},
            "privacy": {"unit": "record", "trust": "local", "epsilon": 1.0, "delta": 1e-5},
            "training": {"rounds": 2, "sample_rate": 0.5},
        }
    )
    resolved = resolve(study, schema=schema, sizes=[_WARM_ROWS])
    plan, learner, noise = plan_of(resolved), new_learner(resolved), NoiseSource.secure()
    plan.epsilon_of(plan.rounds)
    codec = Codec(schema)
    rows = Rows(np.zeros((_WARM_ROWS, codec.width), dtype=codec.dtype))
    gradient = resolved.exchange == "gradient"
    weights = learner.private.vector.detach().clone() if gradient else learner.all_values()
    sealing = SealingKey.generate().public
    seal(sealing, b"", info=b"")
    compute_update(
        learner, Admission(resolved, plan, "", sealing, _WARM_ROWS), rows, weights, noise, noise.generator()
    )


def users_of(spec: SiteSpec, home: SiteHome) -> tuple[frozenset[int], int | None]:
    """Return the numbers of the users who may connect, and of the socket's group or None.

    Raises:
        ConfigError: A name is nobody's.
    """
    try:
        users = [it if isinstance(it, int) else pwd.getpwnam(it).pw_uid for it in spec.relay_users]
    except KeyError as error:
        raise ConfigError(f"no such user: {error.args[0]}", where=home.config, key="relay_users") from None
    group = spec.relay_group
    try:
        number = grp.getgrnam(group).gr_gid if isinstance(group, str) else group
    except KeyError:
        raise ConfigError(f"no such group: {group}", where=home.config, key="relay_group") from None
    return frozenset(users or [os.geteuid()]), number


def check_reach(spec: SiteSpec, home: SiteHome) -> None:
    """Return if other users than the home's own can get to the socket, where some are let in.

    Raises:
        ConfigError: The socket lies in the home, or a name in the file is nobody's.
    """
    users, _ = users_of(spec, home)
    within = socket_of(spec, home).absolute().is_relative_to(home.root.absolute())
    if within and users - {0, os.geteuid()}:
        raise ConfigError(
            "the socket lies in the home, where no user of `relay_users` gets",
            where=home.config,
            key="socket",
            hint="name one in a folder that both users reach, such as /run/fedgen/site.sock",
        )


def socket_of(spec: SiteSpec, home: SiteHome) -> Path:
    """Return where the daemon listens."""
    return home.socket if spec.socket is None else home.root / spec.socket


def tell_supervisor(word: str) -> None:
    """Tell systemd, where it started this process, how far it is.

    Source: sd_notify(3).
    """
    where = os.environ.get("NOTIFY_SOCKET")
    if where:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect("\0" + where[1:] if where.startswith("@") else where)
            channel.send(word.encode())
