"""One line out of what pydantic says: the right key, the right line, the nearest name."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from fedgen.schema.explain import Flaw, explain, nearest
from fedgen.schema.lines import Lines

if TYPE_CHECKING:
    from fedgen.errors import ConfigError


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


class Cat(Closed):
    kind: Literal["cat"]
    lives: int = 9


class Dog(Closed):
    kind: Literal["dog"]
    tricks: list[str] = []


class Home(Closed):
    path: str = Field(alias="schema")
    pets: tuple[Annotated[Cat | Dog, Field(discriminator="kind")], ...] = ()
    rooms: dict[str, Dog] = {}
    pair: tuple[int, Dog] | None = None
    either: Cat | int | None = None
    colour: Colour = Colour.RED
    flag: bool = False
    level: int = 1

    @field_validator("level")
    @classmethod
    def _low(cls, value: int) -> int:
        if value > 8:
            raise ValueError("too high")
        if value > 5:
            raise Flaw("rather high", key=("inner", 0), hint="stay below 5")
        return value


def said(data: Any, lines: Lines | None = None, model: Any = Home) -> ConfigError:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(model).validate_python(data)
    return explain(caught.value, lines or Lines(), "home.yaml", model)


CASES = [
    ({}, "schema", "missing", None),
    ({"schema": 1}, "schema", "valid string", "put it in quotes"),
    ({"schema": None}, "schema", "is not filled in; it must be a valid string", None),
    ({"path": "x", "schema": "x"}, "path", "unknown key", "known here: schema, pets"),
    ({"schema": "x", "colors": "red"}, "colors", "unknown key", "did you mean 'colour'?"),
    ({"schema": "x", "Pets": []}, "Pets", "unknown key", "did you mean 'pets'?"),
    ({"schema": "x", "pets": [{"kind": "cat", "live": 1}]}, "pets.0.live", "unknown key", "'lives'"),
    ({"schema": "x", "pets": [{"kind": "cot"}]}, "pets.0.kind", "must be one of: cat, dog", "'cat'"),
    ({"schema": "x", "pets": [{"lives": 1}]}, "pets.0.kind", "missing", None),
    ({"schema": "x", "pets": [{"kind": "dog", "tricks": ["sit", 2]}]}, "pets.0.tricks.1", "string", "quotes"),
    ({"schema": "x", "pets": [7]}, "pets.0", "must be a mapping", None),
    (
        {"schema": "x", "rooms": {"attic": {"kind": "dog", "trick": []}}},
        "rooms.attic.trick",
        "unknown",
        "'tricks'",
    ),
    ({"schema": "x", "rooms": {"attic": 1}}, "rooms.attic", "must be a mapping", None),
    ({"schema": "x", "pair": [1, {"kind": "dog", "trick": []}]}, "pair.1.trick", "unknown key", "'tricks'"),
    ({"schema": "x", "either": {"kind": "cat", "live": 1}}, "either.live", "unknown key", "'lives'"),
    ({"schema": "x", "colour": "gren"}, "colour", "must be one of: red, green", "'green'"),
    ({"schema": "x", "colour": 7}, "colour", "must be one of: red, green", None),
    ({"schema": "x", "flag": "perhaps"}, "flag", "must be a valid boolean", None),
    ({"schema": "x", "level": 7}, "level.inner.0", "rather high", "stay below 5"),
    ({"schema": "x", "level": 9}, "level", "too high", None),
    (3, None, "must be a mapping", None),
]


@pytest.mark.parametrize(("data", "key", "what", "hint"), CASES)
def test_key_and_words(data: Any, key: Any, what: Any, hint: Any) -> None:
    error = said(data)
    assert error.key == key
    assert what in error.what
    assert error.hint is None if hint is None else hint in str(error.hint)
    assert error.where == "home.yaml"


def test_an_unknown_key_comes_before_what_it_caused() -> None:
    lines = Lines({(): 1, ("flag",): 1, ("shcema",): 2})
    error = said({"flag": "perhaps", "shcema": "x"}, lines)
    assert (error.key, error.line, error.hint) == ("shcema", 2, "did you mean 'schema'?")


def test_otherwise_the_file_decides_which_is_first() -> None:
    lines = Lines({(): 1, ("schema",): 4, ("flag",): 3, ("level",): 2})
    assert said({"schema": 1, "flag": "perhaps", "level": "x"}, lines).key == "level"


def test_a_fault_inside_a_list_is_not_called_a_short_list() -> None:
    model = Annotated[tuple[Cat, ...], Field(min_length=1)]
    assert said([{"kind": "cat", "lives": "x"}], model=model).key == "0.lives"
    assert said([], model=model).what == "has too few entries"


@pytest.mark.parametrize(
    ("name", "known", "guess"),
    [
        ("lable", ["label", "subject"], "label"),
        ("LOCAL-STEPS", ["local_steps", "rounds"], "local_steps"),
        ("noise multiplier", ["noise_multiplier"], "noise_multiplier"),
        ("xyz", ["label", "subject"], None),
        ("label", [], None),
    ],
)
def test_nearest(name: Any, known: Any, guess: Any) -> None:
    assert nearest(name, known) == guess
