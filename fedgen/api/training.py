"""``train``: a study on deployed sites, from the coordinator's machine, into one run folder.

Three processes of the coordinator's machine take part. The SuperLink carries messages. The ServerApp that Flower starts
for the run coordinates (:mod:`fedgen.api.coordinating`); it writes into the state and nowhere else. This one begins the
run, has Flower start the ServerApp and start it again when it dies, copies the state into the run folder after each
round, and writes the results. Any of them may be killed.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen.api.desk import asked_rounds
from fedgen.api.following import Following
from fedgen.api.policy_home import pinned
from fedgen.api.prepare import Prepared, check_formats, exchanged, read_schema
from fedgen.api.roster import declared, enrolled
from fedgen.config.load import load_study
from fedgen.config.plan import plan_of
from fedgen.config.resolve import resolve
from fedgen.coordinator.coordinator import new_run_id
from fedgen.coordinator.state.mirror import earlier_of
from fedgen.coordinator.state.store import StateStore
from fedgen.data.encoded import EncodedTable
from fedgen.enrolment.server_home import ServerHome
from fedgen.errors import ConfigError
from fedgen.events import StudyFinished, silent
from fedgen.flower.control import Control
from fedgen.runs.folder import RunFolder, claim
from fedgen.runs.rollback import rollbacks, run_file, run_id
from fedgen.schema.codec import Codec
from fedgen.schema.layout import layout_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedgen.api.run import Run
    from fedgen.config.study import Study
    from fedgen.events import Listener

WAIT_S: Final = 86_400.0
_LOOK_S: Final = 0.25
_TRIES: Final = 20


def train(
    study: str | Path,
    *,
    server: str | Path,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    wait: float = WAIT_S,
    listener: Listener = silent,
) -> Run:
    """Run a study on the enrolled sites that it names, and return the finished run.

    Guarantees:
        - The run folder holds what one of :func:`fedgen.api.simulation.simulate` holds, except what only a simulation
          can know: evaluation against the rows, the sites' own ledgers.
        - Killed at any instant, here or in the ServerApp or the SuperLink, it continues with ``resume=True``: at the
          right round, with the last good model, and no update counted twice.
        - A run folder that was lost is made again from the state, with ``resume=True``.
        - The same study over the same sites has the hash that it has in a simulation.

    Args:
        study: The study file; ``data.sites.names`` names enrolled sites.
        server: The coordinator's home; `fedgen server up` runs there.
        out: The run folder; default ``<study>-<hash8>`` in the home's folder of runs.
        overrides: ``a.b=c`` changes to the study, as with ``--set``.
        resume: Continue an earlier run of the same study.
        wait: Seconds to wait until enough owners have approved and their sites joined.
        listener: Watches events.

    Raises:
        ConfigError: The study, the home or the folder is wrong; a site is not enrolled; the SuperLink does not answer.
        Refused: Consent ended the run.
        BudgetExhausted: The sites' budget ended the run early; the last safe model is in the folder.
        QuorumLost: Too few sites; the last good model is in the folder.
        Interrupted: Ctrl-C; resumable.
    """
    home = ServerHome(Path(server).absolute())
    home.spec()  # else every site would be called unknown in a folder that is no home
    prepared = prepare_deployed(study, overrides, home)
    control = control_of(home)
    if not _answers(control):
        raise ConfigError(
            "the SuperLink does not answer", where=home.root, hint="start it with `fedgen server up`"
        )
    resolved = prepared.resolved
    root = Path(out) if out is not None else home.runs / f"{resolved.study.study}-{resolved.study_hash[:8]}"
    with StateStore.open(home.state_url) as store:
        untouched = (
            asked_rounds(RunFolder(root)) == 0
        )  # as in a simulation: nothing could be mixed or spent twice
        with claim(root, resolved, resume=resume or untouched) as folder:
            from fedgen.api.results import finished

            if resume and finished(folder):
                from fedgen.api.run import Run

                listener(StudyFinished(outcome="completed", rounds=resolved.study.training.rounds))
                return Run(folder=folder, study=resolved)
            run = _begun(store, folder, prepared, resume=resume)
            return Following(store, control, prepared, folder, run, wait, listener).to_the_end()


def _answers(control: Control) -> bool:
    """Return whether the SuperLink answers; one that is being started again is waited for."""
    for left in reversed(range(_TRIES)):
        if control.is_up():
            return True
        if left:
            time.sleep(_LOOK_S)
    return False


def prepare_deployed(path: str | Path, overrides: Sequence[str], home: ServerHome) -> Prepared:
    """Read a study and resolve it against the enrolled sites; there are no rows here.

    Raises:
        ConfigError: The study is wrong, or a site is not enrolled.
    """
    file = load_study(Path(path), overrides)
    base = file.base.resolve()
    try:
        study = pinned(file.study, base)
        _refuse_rehearsals(study)
        schema = read_schema(study, base)
        rows, persons = declared(study, enrolled(home, study.data.sites.names()))
        resolved = resolve(
            study, schema=schema, sizes=rows, persons=persons, parameters=exchanged(study, schema)
        )
        check_formats(study, schema)
        plan_of(resolved)  # here, so that what cannot be planned names its line
    except ConfigError as error:
        raise file.locate(error) from None
    dtype, width = Codec(schema).dtype, layout_of(schema).row_width
    nothing = np.empty(0, dtype=np.int64)
    return Prepared(
        # What a simulation does beside training needs rows that are not here.
        study=study.model_copy(
            update={
                "simulation": study.simulation.model_copy(update={"judge": False, "compare_pooled": False})
            }
        ),
        base=base,
        schema=schema,
        resolved=resolved,
        table=EncodedTable(codes=np.empty((0, width), dtype=dtype)),
        parts=tuple(nothing for _ in resolved.roster),
        holdout=nothing,
    )


def _refuse_rehearsals(study: Study) -> None:
    """Refuse a study with made-up faults: nothing here could make them.

    Raises:
        ConfigError: It has some.
    """
    if study.simulation.faults:
        raise ConfigError("faults belong to a simulation", key="simulation.faults", hint="leave them out")


def control_of(home: ServerHome) -> Control:
    """Return the SuperLink of a home, as Flower's commands reach it."""
    return Control(home.flower, f"127.0.0.1:{home.spec().superlink_port}", home.ca.certificate)


def _begun(store: StateStore, folder: RunFolder, prepared: Prepared, *, resume: bool) -> str:
    """Return the run of this folder, begun in the state; a folder that was lost takes the study's newest run.

    Raises:
        ConfigError: The folder's run is not in the state.
    """
    resolved, earlier = prepared.resolved, None
    if run_file(folder).is_file():
        run = run_id(folder)
        known_as = [it.next_run for it in rollbacks(folder)]
        if store.run(run) is None and run in known_as[-1:]:
            earlier = earlier_of(folder)  # rolled back: it goes on under its new identity
        elif store.run(run) is None:
            raise ConfigError(
                "the state does not know the run of this folder",
                where=folder.root,
                hint="restore the state, or give the study a new folder with --out",
            )
    else:
        known = store.runs(resolved.study_hash) if resume else ()
        run = known[-1].run if known else new_run_id()
    store.begin(run, study_hash=resolved.study_hash, study=resolved.canonical(), earlier=earlier)
    row = store.run(run)
    if row is not None and row.outcome != "completed":
        store.reopen(run)  # how it ended, and whether it was asked to stop, are of the past
    return run
