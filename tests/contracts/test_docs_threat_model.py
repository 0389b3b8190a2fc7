"""The threat model leaves nothing out: every file of a home, every port, every variable of ours stands in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.enrolling import NOW, join, make_server, make_site
from support.federation import Desk, small_study
from support.site_homes import make_home

import fedgen.api.serving as serving_module
from fedgen.api.owner import approve, look
from fedgen.api.relaying import DEFAULT_PORT, export_relay
from fedgen.api.serving import composed, serving_alone
from fedgen.config.server import ServerSpec
from fedgen.enrolment import site_side
from fedgen.observe.server import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "threat-model.md"
PASSING = {
    ".enrolment.lock",
    ".serving.lock",
    "schema.yaml",
    "rows.csv",
}  # hold nothing, or are the test's own
_NAMED = re.compile(r"`([^`\n]+)`")


def _page() -> str:
    return PAGE.read_text(encoding="utf-8")


def missing(files: Iterable[Path], page: str) -> set[str]:
    """Return the files that the page names neither by themselves nor by the folder that they lie in.

    A page that names a folder `keys/` would say nothing of a key that comes to lie in it.
    """
    section = page[page.index("\n## Keys, ") :]
    named = set(_NAMED.findall(section)) - {"keys/"}
    known = set(PASSING)
    for path in files:
        suffixes = {
            path.name,
            *(f"{it.name}/" for it in path.parents if it.name),
            f"{path.parent.name}/{path.name}",
        }
        # A run's identity is in some names, and SQLite keeps two files beside each of its own.
        plain = re.sub(r"[0-9a-f]{16,}", "…", path.name).removesuffix("-wal").removesuffix("-shm")
        if named & {*suffixes, plain, f"{path.parent.name}/{plain}"}:
            known.add(path.name)
    return {path.name for path in files} - known


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Everything that both sides make, from the first command to the first round."""
    root = tmp_path_factory.mktemp("everything")
    server, site = make_server(root / "coordinator"), make_site(root / "site")
    join(server, site)
    site_side.accept_peer(site, make_site(root / "peer", "hospital-b").request.read_bytes(), believed=True)
    site_side.rotate_site_key(site, "identity", NOW)
    desk = Desk(small_study())
    home = make_home(root / "served", desk)
    approve(home, look(home, desk.study))
    export_relay(home, root / "relay")
    with pytest.MonkeyPatch.context() as patch, serving_alone(home):
        patch.setattr(serving_module, "warm", lambda _schema: None)
        with composed(home) as serving:
            other = desk.of(study=small_study(training={"rounds": 2}))
            for request in (desk.join(), desk.train(1), other.join()):
                serving.site.handle(request)
            found = [it.relative_to(root) for it in root.rglob("*") if it.is_file()]
    assert len(found) > 40
    return found


def test_every_file_of_a_home_is_there(files: list[Path]) -> None:
    assert missing(files, _page()) == set()


@pytest.mark.parametrize("name", ["`ledger.key`", "`state/answer`", "`relay.json`", "`superexec.secret`"])
def test_a_file_that_is_left_out_is_found(files: list[Path], name: str) -> None:
    assert missing(files, _page().replace(name, "")) >= {name.strip("`").rpartition("/")[2]}


def test_every_port_is_there() -> None:
    spec = ServerSpec(address="a.example:8443")
    for port in (
        spec.superlink_port,
        DEFAULT_PORT,
        DEFAULT.rpartition(":")[2],
        spec.listens_on.rpartition(":")[2],
    ):
        assert re.search(rf"^\| {port}\b", _page(), re.MULTILINE), port


def test_every_variable_of_ours_is_there() -> None:
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "fedgen").rglob("*.py"))
    ours = {*re.findall(r"\"(FEDGEN_[A-Z_]+)\"", code), "NOTIFY_SOCKET"}
    assert len(ours) > 4
    assert {name for name in ours if f"`{name}`" not in _page()} == set()


@pytest.mark.parametrize("page", ["docs/reference/threat-model.md", "SECURITY.md"])
def test_every_test_that_a_page_names_is_there(page: str) -> None:
    named = set(re.findall(r"`((?:tests|fedgen|clients)/[^`*]+)`", (ROOT / page).read_text(encoding="utf-8")))
    assert {name for name in named if not (ROOT / name).exists()} == set()
