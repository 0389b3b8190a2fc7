"""The documentation against the code: links resolve, commands parse, snippets compile and the README's lines run."""

from __future__ import annotations

import ast
import itertools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from fedgen.cli.app import command
from fedgen.cli.later import LATER
from fedgen.config.overrides import parse_override
from fedgen.config.study import Study

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```([a-z]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE_PATH = re.compile(r"`((?:fedgen|tests|docs|examples|benchmarks)/[\w./-]+\.(?:py|md|yaml|csv))`")


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for lang, text in FENCE.findall(page.read_text(encoding="utf-8")) if lang in languages]


def commands(page: Path) -> list[list[str]]:
    """Return the arguments of every fedgen command that a page shows."""
    found = []
    for text in blocks(page, "sh", "console"):
        for line in text.splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True) if "fedgen " in line else []
            if words[:1] == ["fedgen"]:
                found.append(words[1:])
    inline = re.findall(r"`(fedgen (?!VERB|NAME)[a-z]+ [^`]*)`", prose(page))
    return found + [shlex.split(text)[1:] for text in inline if text.split()[1] not in LATER]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_relative_link_resolves(page):
    broken = []
    for target in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = page if not path else (page.parent / path).resolve()
        if not place.exists() or (anchor and place.suffix == ".md" and anchor not in anchors(place)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_file_that_is_named_is_there(page):
    assert [path for path in CODE_PATH.findall(prose(page)) if not (ROOT / path).exists()] == []


def test_every_page_is_reached_from_the_index():
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / target.partition("#")[0]).resolve() for target in LINK.findall(prose(index))}
    assert [
        named(page) for page in (ROOT / "docs").rglob("*.md") if page.resolve() not in linked | {index}
    ] == []


def parse(arguments: list[str]) -> None:
    """Parse a command as the command line would, without running its verb."""
    whole = command()
    verb = getattr(whole, "commands", {})[arguments[0]]
    verb.make_context(arguments[0], arguments[1:], parent=click.Context(whole, info_name="fedgen"))


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=named)
def test_every_command_that_is_shown_parses(page):
    for arguments in commands(page):
        assert arguments[0] not in LATER, arguments
        if not any(word in {"DIR", "STUDY", "RUN", "FILE", "a.b=c"} for word in arguments):
            parse(arguments)


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=named)
def test_every_override_that_is_shown_names_a_key(page):
    for arguments in commands(page):
        for option, value in itertools.pairwise(arguments):
            if option == "--set" and value != "a.b=c":
                model = Study
                for part in parse_override(value).key:
                    names = {field.alias or name: field for name, field in model.model_fields.items()}
                    assert part in names, value
                    model = names[part].annotation


def test_a_command_that_does_not_parse_is_seen():
    with pytest.raises(click.ClickException):
        parse(["simulate", "study.yaml", "--no-such-option"])


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=named)
def test_every_python_block_compiles(page):
    for text in blocks(page, "python"):
        ast.parse(text)


def test_the_public_names_are_all_in_the_reference():
    import fedgen

    page = (ROOT / "docs" / "reference" / "python-api.md").read_text(encoding="utf-8")
    assert [name for name in fedgen.__all__ if f"fedgen.{name}" not in page] == []


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named_ = {
        name
        for page in PAGES
        for name in re.findall(
            r"\bmake ([a-z]+(?:-[a-z]+)*)",
            "\n".join([*blocks(page, "sh"), *re.findall(r"`([^`\n]*)`", prose(page))]),
        )
    }
    assert named_ <= targets


def fedgen(arguments: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "fedgen", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def readme_commands() -> list[list[str]]:
    return [
        arguments
        for arguments in commands(ROOT / "README.md")
        if arguments[0] in {"init", "check", "simulate", "sample", "report"}
    ]


def test_the_readmes_quick_lines_run(tmp_path):
    for arguments in readme_commands()[:2]:
        done = fedgen(arguments, tmp_path)
        assert done.returncode == 0, done.stderr
    assert [arguments[0] for arguments in readme_commands()[:2]] == ["init", "check"]


@pytest.mark.slow
@pytest.mark.process
def test_the_readmes_lines_run_in_their_order(tmp_path):
    for arguments in readme_commands():
        # The same command on a shorter study.
        shorter = ["--set", "training.rounds=5", "--set", "simulation.judge=false"]
        done = fedgen([*arguments, *(shorter if arguments[0] == "simulate" else [])], tmp_path)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "more.csv").exists()
    assert (tmp_path / "runs" / "mystudy" / "report.html").exists()


@pytest.mark.slow
@pytest.mark.process
def test_the_readmes_python_runs(tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (text,) = blocks(ROOT / "README.md", "python")
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(100, 8, 8) Union: ")
