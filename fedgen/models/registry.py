"""From a name, a layout and options to a model with known first weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fedgen.errors import ConfigError
from fedgen.models.base import init_
from fedgen.models.image_gan import ImageGan
from fedgen.models.image_vae import ImageVae
from fedgen.models.options import ModelOptions, complete
from fedgen.models.tabular_gan import TabularGan
from fedgen.models.tabular_vae import TabularVae
from fedgen.schema.layout import ImageLayout, TableLayout

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedgen.models.base import GenerativeModel

__all__ = ["build", "init_"]

_MODELS: Final[dict[str, Callable[..., GenerativeModel]]] = {
    model.name: model for model in (TabularVae, TabularGan, ImageVae, ImageGan)
}


def build(
    name: str,
    layout: TableLayout | ImageLayout,
    options: ModelOptions | None = None,
    *,
    seed: int = 0,
) -> GenerativeModel:
    """Return the model ``name`` for rows of ``layout``.

    Guarantees:
        - Equal arguments give equal weights; the global generator is neither read nor moved.

    Args:
        name: ``tabular-vae``, ``tabular-gan``, ``image-vae`` or ``image-gan``.
        layout: Of the rows; ``TableLayout`` for tabular models, ``ImageLayout`` for image models.
        options: What the study says; missing parts are the model's defaults.
        seed: Public seed of the first weights.

    Raises:
        ConfigError: The name is unknown, an option does not belong to it, the layout is of the other kind,
            or a table has no column besides its label.
    """
    full = complete(name, options)
    kind = "table" if name.startswith("tabular") else "image"
    if not isinstance(layout, TableLayout if kind == "table" else ImageLayout):
        raise ConfigError(
            f"{name} needs a schema of kind {kind}", key="model.name", hint="choose another model"
        )
    if isinstance(layout, TableLayout) and layout.width == 1 and layout.label == 0:
        raise ConfigError(
            "a table needs a column besides its label", key="label", hint="declare another column"
        )
    shapes: dict[str, Any] = full.model_dump(exclude_none=True)
    model: GenerativeModel = _MODELS[name](layout, **shapes)
    model.options = full
    init_(model, seed)
    return model
