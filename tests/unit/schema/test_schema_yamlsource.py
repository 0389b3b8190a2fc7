"""Files that people write: plain values, true lines, and bounds on what a file can make us do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest

from fedgen.errors import ConfigError
from fedgen.schema.yamlsource import MAX_BYTES, Lines, load_yaml

if TYPE_CHECKING:
    from pathlib import Path


def load(folder: Path, content: Any, name: Any = "study.yaml") -> Any:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_yaml(path)


def refusal(folder: Path, content: Any, name: Any = "study.yaml") -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(folder, content, name)
    assert caught.value.diagnostics()["error"] == "ConfigError"
    return caught.value


SCALARS = [
    ("no", "no"),
    ("Yes", "Yes"),
    ("on", "on"),
    ("true", True),
    ("False", False),
    ("~", None),
    ("null", None),
    ("", None),
    ("12", 12),
    ("-3", -3),
    ("010", 10),
    ("0o17", 15),
    ("0xff", 255),
    ("1_000", "1_000"),
    ("1:30", "1:30"),
    ("1e-5", 1e-5),
    ("1.0e-5", 1e-5),
    (".5", 0.5),
    ("5.", 5.0),
    (".inf", math.inf),
    ("-.inf", -math.inf),
    ("2020-01-01", "2020-01-01"),
    ("'5'", "5"),
    ("!!str 5", "5"),
    ("=", "="),
    ("9" * 400, int("9" * 400)),
]


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_scalars_are_those_of_the_core_schema(tmp_path: Path, text: Any, value: Any) -> None:
    data, _ = load(tmp_path, f"key: {text}\n")
    assert data == {"key": value}
    assert type(data["key"]) is type(value)


def test_nan_is_a_number(tmp_path: Path) -> None:
    data, _ = load(tmp_path, "key: .nan\n")
    assert math.isnan(data["key"])


def test_lines_of_keys_items_and_what_is_not_there(tmp_path: Path) -> None:
    _, lines = load(tmp_path, "a: 1\nb:\n  - x\n  - y: 2\n    z: 3\n")
    assert lines.of(("a",)) == 1
    assert lines.of(("b",)) == 2
    assert lines.of(("b", 1)) == 4
    assert lines.of(("b", 1, "z")) == 5
    assert lines.of(("b", 1, "absent", 7)) == 4
    assert lines.of(("absent",)) == 1
    assert Lines().of(("a",)) is None


def test_keys_are_text(tmp_path: Path) -> None:
    assert load(tmp_path, "1: a\ntrue: b\n")[0] == {"1": "a", "true": "b"}


def test_an_alias_is_a_copy(tmp_path: Path) -> None:
    data, _ = load(tmp_path, "a: &x [1]\nb: *x\n")
    assert data == {"a": [1], "b": [1]}
    assert data["a"] is not data["b"]


def test_a_duplicate_key_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path, "a:\n  b: 1\n  c: 2\n  b: 3\n")
    assert (error.line, error.key) == (4, "a.b")
    assert "line 2" in error.what


def test_an_alias_bomb_is_refused(tmp_path: Path) -> None:
    layers = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    layers += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    assert "too many" in refusal(tmp_path, "\n".join(layers)).what


def test_an_alias_to_itself_is_refused(tmp_path: Path) -> None:
    assert "deeply nested" in refusal(tmp_path, "a: &a [*a]\n").what


@pytest.mark.parametrize(("name", "text"), [("s.yaml", "["), ("s.yaml", "- "), ("s.json", "[")])
def test_deep_nesting_is_refused(tmp_path: Path, name: Any, text: Any) -> None:
    assert "deeply" in refusal(tmp_path, text * 50_000, name).what


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.getcwd []", "!mine 1", "!!set {a}", "!!binary aGk="]
)
def test_tags_make_no_objects(tmp_path: Path, tag: Any) -> None:
    error = refusal(tmp_path, f"key: {tag}\n")
    assert (error.what, error.line) == ("tags are not read here", 1)


@pytest.mark.parametrize("text", ["!!int x", "9" * 5000, "!!bool maybe", "!!float x"])
def test_a_tag_that_the_text_contradicts_is_refused(tmp_path: Path, text: Any) -> None:
    assert "not a value of the type" in refusal(tmp_path, f"key: {text}\n").what


def test_a_key_that_is_no_text_is_refused(tmp_path: Path) -> None:
    assert "a key must be text" in refusal(tmp_path, "? [a]\n: 1\n").what


def test_one_mib_is_the_limit(tmp_path: Path) -> None:
    assert load(tmp_path, "a: 1\n" + "#" * (MAX_BYTES - 5))[0] == {"a": 1}
    assert "larger than 1 MiB" in refusal(tmp_path, "a: 1\n" + "#" * (MAX_BYTES - 4)).what


@pytest.mark.parametrize("content", ["a: 1\nb: caf\xe9\n".encode("latin-1"), "a: 1\n".encode("utf-16")])
def test_text_that_is_not_utf8_is_refused(tmp_path: Path, content: Any) -> None:
    error = refusal(tmp_path, content)
    assert error.what == "not UTF-8 text"
    assert error.line == (2 if b"caf" in content else 1)


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    assert load(tmp_path, b"\xef\xbb\xbfa: 1\n")[0] == {"a": 1}


@pytest.mark.parametrize("content", ["", "\n# only a remark\n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: Any) -> None:
    assert refusal(tmp_path, content).what == "the file is empty"


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_yaml(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_yaml(tmp_path)


@pytest.mark.parametrize(
    ("content", "line"),
    [("a: 1\nb: [1,\nc: 2\n", 2), ("a: ]\nb: 1\n", 1), ("a: 1\n\tb: 2\n", 2), ("a: 1\n---\nb: 2\n", 2)],
)
def test_broken_yaml_names_its_line(tmp_path: Path, content: Any, line: Any) -> None:
    assert refusal(tmp_path, content).line == line


def test_a_control_character_names_its_line(tmp_path: Path) -> None:
    assert refusal(tmp_path, "a: 1\nb: \x07\n").line == 2


def test_json_has_lines_too(tmp_path: Path) -> None:
    data, lines = load(tmp_path, '{"a": 1,\n\t"b": [\n\t\ttrue]}', "s.json")
    assert data == {"a": 1, "b": [True]}
    assert (lines.of(("b",)), lines.of(("b", 0))) == (2, 3)


def test_json_that_is_no_yaml_is_read_without_lines(tmp_path: Path) -> None:
    data, lines = load(tmp_path, '{"a": "\x7f"}', "s.json")
    assert data == {"a": "\x7f"}
    assert lines.of(("a",)) is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"a": 1,\n}', "not valid JSON"),
        ('{"a": NaN}', "NaN"),
        ('{"a": 1, "a": 2}', "twice"),
        ("[" + "1" * 5000 + "]", "too long"),
    ],
)
def test_broken_json_is_refused(tmp_path: Path, content: Any, says: Any) -> None:
    assert says in refusal(tmp_path, content, "s.json").what


def test_toml_is_read(tmp_path: Path) -> None:
    assert load(tmp_path, 'a = 1\n[b]\nc = "x"\n', "s.toml")[0] == {"a": 1, "b": {"c": "x"}}
    error = refusal(tmp_path, "a = 1\nb = = 2\n", "s.toml")
    assert (error.what, error.line) == ("not valid TOML", 2)
