"""What a study may say about its model: names, sizes and weights, torch-free.

Everything is optional in a file; :func:`complete` fills in the defaults of the named model, so that a
resolved study holds every number that shaped its result. The defaults were chosen by simulation under local
noise at ε = 3 (docs/benchmarks.md): small nets win there, because noise grows with the number of parameters.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedgen.errors import ConfigError

ModelName = Literal["tabular-vae", "tabular-gan", "image-vae", "image-gan"]
MODEL_NAMES: Final[tuple[ModelName, ...]] = get_args(ModelName)

Width = Annotated[int, Field(ge=1, le=4096)]
Widths = Annotated[tuple[Width, ...], Field(min_length=1, max_length=4)]
Decoder = Literal["autoregressive", "factorised"]


class ModelOptions(BaseModel):
    """Sizes and weights of a generative model; ``None`` means the model's own default.

    Guarantees:
        - Frozen, and closed: an unknown key is refused.
        - Every number is bounded, so no file can ask for a net that does not fit in memory by a slip.

    Attributes:
        latent: Dimension of the Gaussian latent, 1 to 512.
        hidden: Widths of the hidden layers of the private module, 1 to 4 layers of 1 to 4096. An encoder uses
            them in this order, a decoder in reverse; for ``image-gan`` they are the channels of the two
            convolutions.
        beta: Weight of the KL term, (0, 100]. VAEs only.
        decoder: ``autoregressive`` (each column sees those before it) or ``factorised``. ``tabular-vae``
            only.
        generator: Widths (``image-gan``: channels) of the generator's hidden layers. GANs only.
        temperature: Of the Gumbel-softmax rows shown to the critic, [0.1, 5]. ``tabular-gan`` only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    latent: int | None = Field(default=None, ge=1, le=512)
    hidden: Widths | None = None
    beta: float | None = Field(default=None, gt=0, le=100)
    decoder: Decoder | None = None
    generator: Widths | None = None
    temperature: float | None = Field(default=None, ge=0.1, le=5)


_DEFAULTS: Final[dict[ModelName, dict[str, Any]]] = {
    "tabular-vae": {"latent": 16, "hidden": (64,), "beta": 1.0, "decoder": "autoregressive"},
    "tabular-gan": {"latent": 8, "hidden": (128,), "generator": (64,), "temperature": 1.0},
    "image-vae": {"latent": 16, "hidden": (128,), "beta": 1.0},
    "image-gan": {"latent": 16, "hidden": (16, 32), "generator": (32, 16)},
}


def complete(name: str, options: ModelOptions | None = None) -> ModelOptions:
    """Return ``options`` with every field that the model ``name`` uses filled in.

    Guarantees:
        - What the caller set is kept; ``complete`` of a complete value is that value.
        - The result depends on the arguments only.

    Args:
        name: One of :data:`MODEL_NAMES`.
        options: What the study says; ``None`` for nothing.

    Raises:
        ConfigError: The name is unknown, an option does not belong to this model, or a number of layers is
            not the one that the model has.
    """
    if name not in _DEFAULTS:
        raise ConfigError(
            f"no model named {name!r}", key="model.name", hint=f"one of: {', '.join(MODEL_NAMES)}"
        )
    defaults = _DEFAULTS[name]
    given = {} if options is None else options.model_dump(exclude_none=True)
    for key in given:
        if key not in defaults:
            raise ConfigError(
                f"{name} has no such option", key=f"model.{key}", hint=f"it has: {', '.join(defaults)}"
            )
    for key in ("hidden", "generator"):
        if name == "image-gan" and len(given.get(key, (0, 0))) != len(defaults[key]):
            raise ConfigError(
                "image-gan has two convolutions", key=f"model.{key}", hint="give two channel counts"
            )
    return ModelOptions.model_validate({**defaults, **given})


def options_from(name: str, values: dict[str, Any]) -> ModelOptions:
    """Return the complete options that a mapping asks for; inverse of ``model_dump`` without ``None``.

    Raises:
        ConfigError: A key is unknown or a value out of bounds; ``key`` names it.
    """
    try:
        options = ModelOptions.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(["model", *(str(part) for part in first["loc"])])
        raise ConfigError(first["msg"], key=key) from error
    return complete(name, options)
