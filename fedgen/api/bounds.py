"""How much a number of charged rounds can have cost: an upper bound that is cheap to ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedgen.privacy.plan import Plan


def cost_of_rounds(plan: Plan) -> Callable[[int], float]:
    """Return the function from charged rounds to the most they can have cost.

    Guarantees:
        - Never below the truth: more rounds than planned cost at most what the study may spend at all,
          because a site's account refuses what goes beyond it.
    """
    curve = plan.curve()

    def at_most(charged: int) -> float:
        if charged <= curve.total or plan.epsilon_allowed is None:
            return curve.at(min(charged, curve.total))
        return plan.epsilon_allowed

    return at_most
