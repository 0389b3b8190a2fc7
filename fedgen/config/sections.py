"""The sections of a study file that name data, model, policy and release."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import ConfigDict, Field, field_validator, model_validator

from fedgen.config.base import Frozen
from fedgen.config.fields import MAX_SITES, Count, Number, Positive, Text, Whole, Word, not_boolean
from fedgen.config.policy import MAX_PACKS, DocumentsSpec, PackKeys, RecordsSpec, Sha256, Stated
from fedgen.errors import ConfigError
from fedgen.messages import SiteName
from fedgen.models.options import ModelName, ModelOptions, complete
from fedgen.schema.yamlsource import Flaw

_SECRET: Final = re.compile(
    r"pass(word|wd|file|phrase)|pwd|token|secret|_key\b|\bsig\b|credential", re.IGNORECASE
)
_LOGIN: Final = re.compile(
    r"(?!csv:|parquet:|sqlite:)[a-z][a-z0-9+.-]*://[^/@:]*:[^@]*@.*", re.IGNORECASE | re.DOTALL
)


class SitesSpec(Frozen):
    """Who the sites are, and how a simulation cuts one table into them.

    Attributes:
        count: Number of sites, 1 to 10,000; follows from ``names`` where these are given.
        named: The sites' names (key ``names``), in the order of the roster; None means ``site-01``, ``site-02``, ….
        split: ``iid``, ``dirichlet`` (uneven shares of each value of ``by``), or ``by`` (one column decides).
        by: Column that ``split`` looks at; None means the label column.
        alpha: Concentration of the Dirichlet distribution, positive; small is uneven.
        seed: Public seed of the cut; it plays no part in privacy.
    """

    # The key is `names`; the name is taken by what returns the names, given or made up.
    model_config = ConfigDict(populate_by_name=False)

    count: Annotated[int, Number, Field(ge=1, le=MAX_SITES)]
    named: Annotated[tuple[SiteName, ...], Field(min_length=1, max_length=MAX_SITES)] | None = Field(
        default=None, alias="names"
    )
    split: Literal["iid", "dirichlet", "by"] = "iid"
    by: Text | None = None
    alpha: Positive | None = None
    seed: Whole = 0

    @model_validator(mode="before")
    @classmethod
    def _count_follows(cls, data: Any) -> Any:
        if isinstance(data, dict) and "count" not in data and isinstance(data.get("names"), (list, tuple)):
            return {"count": len(data["names"]), **data}
        return data

    @model_validator(mode="after")
    def _names_are_as_many(self) -> SitesSpec:
        if self.named is None:
            return self
        twice = next((name for name, times in Counter(self.named).items() if times > 1), None)
        if twice is not None:
            raise Flaw(f"{twice} is there twice", key=("names",), hint="a site has one name of its own")
        if len(self.named) != self.count:
            raise Flaw(
                f"{len(self.named)} names, but count says {self.count}",
                key=("names",),
                hint="leave count out: it follows from the names",
            )
        return self

    @model_validator(mode="after")
    def _split_has_what_it_needs(self) -> SitesSpec:
        if self.split == "dirichlet" and self.alpha is None:
            raise Flaw(
                "split: dirichlet needs alpha", key=("split",), hint="0.5 is uneven, 100 is nearly even"
            )
        if self.split != "dirichlet" and self.alpha is not None:
            raise Flaw("alpha belongs to split: dirichlet", key=("alpha",))
        if self.split == "iid" and self.by is not None:
            raise Flaw("by belongs to split: dirichlet or split: by", key=("by",))
        return self

    def names(self) -> tuple[str, ...]:
        """Return the sites' names in the roster, in order: those given, or ``site-01``, ``site-02``."""
        if self.named is not None:
            return self.named
        width = max(2, len(str(self.count)))
        return tuple(f"site-{number:0{width}d}" for number in range(1, self.count + 1))


class DataSpec(Frozen):
    """Where rows come from and what is publicly known of them.

    Attributes:
        source: A source address, as written; ``builtin:NAME`` brings its own schema. A site's file wins.
        schema_file: Path of the schema file (key ``schema``), relative to the study file.
        sites: How a simulation cuts the table.
        holdout: Share of rows kept out of training for evaluation, in [0, 0.5]; simulation only.
        limit: Read at most this many rows.
    """

    # The promised key is `schema`, a name pydantic's base class already has: an alias, and the only spelling.
    model_config = ConfigDict(populate_by_name=False)

    source: Text
    schema_file: Text | None = Field(default=None, alias="schema")
    sites: SitesSpec
    holdout: Annotated[float, Number, Field(ge=0, le=0.5, allow_inf_nan=False)] = 0.2
    limit: Count | None = None

    @property
    def is_builtin(self) -> bool:
        """Whether the source travels with an installed package."""
        return self.source.startswith("builtin:")

    @field_validator("source")
    @classmethod
    def _no_password(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
        except ValueError:
            raise Flaw("is not a source address") from None
        if (
            parts.password is not None
            or _LOGIN.fullmatch(value.strip())
            or any(_SECRET.search(name) for name in parse_qs(parts.query))
        ):
            raise Flaw(
                "must not hold a password: every site sees the study", hint="use PGPASSFILE or a site's file"
            )
        return value

    @model_validator(mode="after")
    def _has_a_schema(self) -> DataSpec:
        if self.schema_file is None and not self.is_builtin:
            raise Flaw(
                "a schema is needed: declared bounds and categories",
                key=("schema",),
                hint="`fedgen init --from FILE` drafts one; builtin: sources bring their own",
            )
        return self


class ModelSpec(ModelOptions):
    """Which generator, and its sizes; a size left out is filled in from the model's own default.

    Attributes:
        name: ``tabular-vae``, ``tabular-gan``, ``image-vae`` or ``image-gan``.
        fake_batch: Fixed size of a GAN's fake batch.
        public_steps: Generator steps for each critic step of a GAN.
        init_seed: Public seed of the first weights.
    """

    name: ModelName
    fake_batch: Annotated[int, Field(ge=1, le=65_536)] | None = None
    public_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    init_seed: Whole = 0

    @property
    def kind(self) -> str:
        """``table`` or ``image``: the schema this model can read."""
        return "table" if self.name.startswith("tabular-") else "image"

    @property
    def is_gan(self) -> bool:
        """Whether only a critic touches rows."""
        return self.name.endswith("-gan")

    @property
    def options(self) -> ModelOptions:
        """The part of the section that shapes the net."""
        return ModelOptions(**{name: getattr(self, name) for name in ModelOptions.model_fields})

    def completed(self) -> ModelSpec:
        """Return this section with every default of the model filled in; a complete one is unchanged.

        Raises:
            ConfigError: An option does not belong to this model; ``key`` names it.
        """
        filled = complete(self.name, self.options).model_dump()
        if self.is_gan:
            filled["fake_batch"] = self.fake_batch or 128
            filled["public_steps"] = self.public_steps or 1
        else:
            for option in ("fake_batch", "public_steps"):
                if getattr(self, option) is not None:
                    raise ConfigError(
                        f"{self.name} has no such option", key=f"model.{option}", hint="it belongs to a GAN"
                    )
        return self.model_copy(update=filled)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: object) -> object:
        return not_boolean(value)


class PolicySpec(Frozen):
    """What the rows may be used for, and who has agreed.

    Attributes:
        packs: Rule packs that decide beside the sites' own: names of shipped ones, or paths.
        pins: Digest of each pack, so that everybody means the same; filled in when the study is resolved.
        pack_keys: Ed25519 public keys, hex, whose signatures on packs count; simulation only, a site names its own.
        purpose: The purpose for which consent is asked.
        consent: Path of the consent log, relative to the study file; None where consent is not the ground.
        regime: Whether a silent subject is out (``opt-in``) or in (``opt-out``); packs know their own answer.
        min_cohort: A site with fewer permitted rows does not train.
        confirm: Ask every site once more right before its update is summed; always so with packs or a consent log.
        subjects: Path of the people's profiles: subject, birth_date, residence, timezone; simulation only.
        records: What holds for the rows; a site's own file wins.
        documents: The documents behind the run; a site's own file wins.
        sites: What single sites state instead, by name; simulation only, in place of their own files.
    """

    packs: Annotated[tuple[Text, ...], Field(max_length=MAX_PACKS)] = ()
    pins: dict[Word, Sha256] | None = None
    pack_keys: PackKeys | None = None
    purpose: Word = "train_generator"
    consent: Text | None = None
    regime: Literal["opt-in", "opt-out"] = "opt-in"
    min_cohort: Count = 10
    confirm: bool | None = None
    subjects: Text | None = None
    records: RecordsSpec | None = None
    documents: DocumentsSpec | None = None
    sites: dict[SiteName, Stated] | None = None

    @property
    def confirms(self) -> bool:
        """Whether every site is asked once more right before its update is summed."""
        return bool(self.confirm or self.packs or self.consent is not None)

    def stated(self, site: str) -> Stated:
        """Return what the study states for one site."""
        everywhere = Stated(records=self.records, documents=self.documents)
        return (self.sites or {}).get(site, Stated()).over(everywhere)

    @model_validator(mode="after")
    def _packs_have_what_they_read(self) -> PolicySpec:
        if not self.packs:
            for name in ("pins", "pack_keys", "subjects", "records", "documents", "sites"):
                if getattr(self, name) is not None:
                    raise Flaw(f"{name} belongs to packs", key=(name,), hint="name packs, or leave it out")
            return self
        if self.confirm is False:
            raise Flaw(
                "packs ask every site before its update is summed", key=("confirm",), hint="leave confirm out"
            )
        if self.regime != "opt-in":
            raise Flaw("packs know what silence means", key=("regime",), hint="leave regime out")
        return self


class ReleaseSpec(Frozen):
    """What is sampled at the end; post-processing, costs no budget.

    Attributes:
        rows: How many rows or images.
        formats: Files to write.
        gate: Promised; not in this version.
    """

    rows: Count = 1000
    formats: Annotated[
        tuple[Literal["parquet", "csv", "npz", "png"], ...], Field(min_length=1, max_length=4)
    ] = ("parquet",)
    gate: object | None = None
