"""The ClientApp: load the weights, train, answer."""

from __future__ import annotations

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from plain_flower.task import VAE, load_site, train

app = ClientApp()


@app.train()
def on_train(message: Message, context: Context) -> Message:
    """Train one site's model for one round."""
    model = VAE()
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    loader = load_site(int(context.node_config["partition-id"]))
    examples = len(loader.dataset)  # type: ignore[arg-type]
    loss, epsilon = train(model, loader)
    content = RecordDict(
        {
            "arrays": ArrayRecord(model.state_dict()),
            "metrics": MetricRecord({"loss": loss, "epsilon": epsilon, "num-examples": examples}),
        }
    )
    return Message(content=content, reply_to=message)
