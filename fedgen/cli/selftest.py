"""``fedgen audit selftest``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fedgen.cli.output import emit, table
from fedgen.cli.verbs import Changes, Debug, Json, StudyFile  # noqa: TC001 - typer reads them at run time
from fedgen.errors import IntegrityError

if TYPE_CHECKING:
    from fedgen.api.selftest import Examined


def selftest(
    study: StudyFile,
    set_: Changes = None,
    json_: Json = False,  # noqa: FBT002 - a command line flag
    debug: Debug = False,  # noqa: FBT002, ARG001 - read by the error path
) -> None:
    """Check sensitivity and noise of a study's own model and engine; reads no row, spends nothing."""
    from fedgen.api.selftest import selftest as examine

    examined = examine(study, set_ or ())
    emit(examined.to_json(), as_json=json_, text=as_text(examined))
    if not examined.passed:
        raise IntegrityError(
            "the engine does not keep what the plan charges", where=study, hint="train nothing with it"
        )


_UNITS: Final = {
    "record": ("one extreme record", "control: without clipping"),
    "person": ("one extreme person", "control: each of her rows clipped alone"),
    "site": ("one whole site", "control: without clipping"),
}


def as_text(examined: Examined) -> str:
    """Return what was found, one claim a line."""
    found, noise = examined.found, examined.found.noise
    extreme, control = _UNITS[examined.unit]
    scale = f"{noise.ratio:.4f} of what is charged, accepted {noise.low:.4f} to {noise.high:.4f}"
    return table(
        [
            (
                _mark(found.bounded),
                extreme,
                f"moved the sum by {found.moved:.6g}, at most {found.clip:g}",
            ),
            (
                _mark(found.unclipped > found.clip),
                control,
                f"it would have moved it by {found.unclipped:.4g}",
            ),
            (
                _mark(noise.passed),
                "noise scale",
                f"{scale}, {noise.samples:,} samples, error rates 1e-6",
            ),
            (
                _mark(not found.control.passed),
                "control: noise 10 % too small",
                f"found out at {found.control.ratio:.4f}",
            ),
        ]
    )


def _mark(passed: bool) -> str:  # noqa: FBT001 - one verdict
    return "ok" if passed else "FAILED"
