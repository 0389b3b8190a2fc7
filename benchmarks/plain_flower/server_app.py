"""The ServerApp: FedAvg over all sites, and the time of each round."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from plain_flower.task import VAE, load_held_out, test


@dataclass
class Timeline:
    """What the server saw: a clock reading before round 1 and after each round, and each round's figures."""

    clock: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    epsilon: list[float] = field(default_factory=list)


def server_app(*, sites: int, rounds: int, timeline: Timeline) -> ServerApp:
    """Return a ServerApp that trains on all ``sites`` for ``rounds`` rounds and fills ``timeline``."""
    app = ServerApp()
    held_out = load_held_out()

    def evaluate(_round: int, arrays: ArrayRecord) -> MetricRecord:
        model = VAE()
        model.load_state_dict(arrays.to_torch_state_dict())
        timeline.loss.append(test(model, held_out))
        timeline.clock.append(time.perf_counter())
        return MetricRecord({"loss": timeline.loss[-1]})

    @app.main()
    def main(grid: Grid, context: Context) -> None:  # noqa: ARG001 - Flower's signature
        strategy = FedAvg(
            fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=sites, min_available_nodes=sites
        )
        result = strategy.start(
            grid=grid,
            initial_arrays=ArrayRecord(VAE().state_dict()),
            num_rounds=rounds,
            evaluate_fn=evaluate,
        )
        metrics = result.train_metrics_clientapp
        timeline.epsilon.extend(float(metrics[number]["epsilon"]) for number in sorted(metrics))  # type: ignore[arg-type]

    return app
