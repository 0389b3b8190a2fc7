"""Learners on loan: a process with a thousand sites owns as many models as it has threads."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fedgen.models.base import parameter_count
from fedgen.models.registry import build
from fedgen.schema.layout import layout_of
from fedgen.training.learner import Learner

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fedgen.config.resolve import ResolvedStudy
    from fedgen.config.study import Study
    from fedgen.schema.table import Schema
    from fedgen.site.admit import Admission


def new_learner(study: ResolvedStudy) -> Learner:
    """Return a learner for a study, with the public first weights every participant agrees on."""
    spec = study.study.model
    model = build(spec.name, layout_of(study.data_schema), spec.options, seed=spec.init_seed)
    return Learner(
        model,
        clip=study.study.privacy.clip,
        engine=study.study.training.engine,
        fake_batch=spec.fake_batch or 1,
        unit=study.study.privacy.unit,
    )


def private_parameters(study: ResolvedStudy) -> int:
    """Return how many values touch rows, without an engine: a loaded Opacus would cost seconds."""
    spec = study.study.model
    model = build(spec.name, layout_of(study.data_schema), spec.options, seed=spec.init_seed)
    return parameter_count(model.private)


def exchanged_parameters(study: Study, schema: Schema) -> int:
    """Return how many values a site sends in a round, from a study that is not resolved yet.

    Under gradient exchange what touches rows, under update exchange everything.

    Raises:
        ConfigError: The model cannot be built for this schema.
    """
    spec = study.model.completed()
    model = build(spec.name, layout_of(schema), spec.options, seed=spec.init_seed)
    everything = study.exchanged == "update"
    return parameter_count(model.private) + (parameter_count(model.public) if everything else 0)


class Bench:
    """One learner for each thread and study; its weights are overwritten by each loan."""

    def __init__(self) -> None:
        self._local = threading.local()

    @contextmanager
    def lend(self, admission: Admission) -> Iterator[Learner]:
        """Lend this thread's learner for the length of the block."""
        held: tuple[str, Learner] | None = getattr(self._local, "held", None)
        if held is None or held[0] != admission.study.study_hash:
            held = (admission.study.study_hash, new_learner(admission.study))
            self._local.held = held
        yield held[1]
