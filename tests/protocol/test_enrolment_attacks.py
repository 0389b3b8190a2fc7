"""Enrolment against somebody on the way who may change, exchange, keep and replay every file that is sent.

The attacker also has keys of its own. A person compares fingerprints where it is asked for; nothing here rests on a
person who says yes to everything, except where that is what is tested.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.enrolling import LATER, NOW, TERMS, altered, make_server, make_site

from fedgen.api import enrolment
from fedgen.api.enrolment import (
    Believed,
    look_at_invitation,
    look_at_request,
    server_enroll,
    server_invite,
    server_revoke,
    site_init,
    site_join,
    site_peer,
)
from fedgen.api.keys import keys_rotate
from fedgen.crypto.keys import SigningKey
from fedgen.enrolment import site_side
from fedgen.enrolment.documents import Invitation, Request, shown
from fedgen.enrolment.server_home import ServerHome
from fedgen.enrolment.signed import decode, encode
from fedgen.enrolment.site_home import SiteHome
from fedgen.errors import Code, ConfigError, FedgenError, IntegrityError, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator


class World:
    """A coordinator, two sites, and the folder through which their files travel."""

    def __init__(self, root: Path) -> None:
        self.server = make_server(root / "server")
        self.sites = {name: make_site(root / name, name) for name in ("hospital-a", "hospital-b")}
        self.mail = root / "mail"
        self.mail.mkdir()

    def request(self, name: str) -> Path:
        path = self.mail / f"{name}.request.json"
        path.write_bytes(self.sites[name].request.read_bytes())
        return path

    def enroll(self, name: str, path: Path | None = None) -> Path:
        out = self.mail / f"{name}.invitation.json"
        said = Believed(shown(self.sites[name].identity().public.hex()))
        server_enroll(self.server.root, path or self.request(name), said, out=out)
        return out

    def join(self, name: str, path: Path) -> None:
        said = Believed(shown(self.server.identity().public.hex()))
        site_join(self.sites[name].root, path, said)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(enrolment, "now", lambda: NOW)
    monkeypatch.chdir(tmp_path)
    return World(tmp_path)


@contextmanager
def refused(code: Code) -> Iterator[None]:
    with pytest.raises((Refused, IntegrityError)) as error:
        yield
    assert error.value.code is code


def test_honest_people_get_through(world: World) -> None:
    for name in world.sites:
        world.join(name, world.enroll(name))
    assert all(site.coordinator(NOW) for site in world.sites.values())


def test_a_forged_request_is_caught_by_the_fingerprint(world: World) -> None:
    """The attacker sends a sound request with the site's name and its own key: only the comparison can tell."""
    genuine = site_side.needed_request(world.sites["hospital-a"])
    attacker = SigningKey.generate()
    forged = encode(genuine.model_copy(update={"identity": attacker.public.hex()}), attacker)
    path = world.mail / "forged.json"
    path.write_bytes(forged)
    with pytest.raises(Refused, match="fingerprint is another"):
        world.enroll("hospital-a", path)
    assert world.server.sites() == {}
    wait = look_at_request(world.server.root, path, Believed())
    assert wait is not None  # nobody is let in unasked
    assert wait.word.shown == shown(attacker.public.hex())
    with pytest.raises(Refused, match="nobody compared"):
        server_enroll(world.server.root, path, Believed(), out=world.mail / "x.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "hospital-z"),
        ("rows", 990_000),
        ("persons", 1),
        ("number", 9),
        ("issued", "2020-01-01T00:00:00Z"),
    ],
)
def test_a_request_with_a_swapped_value_is_refused(key: str, value: object, world: World) -> None:
    path = world.request("hospital-a")
    path.write_bytes(altered(path.read_bytes(), key, value))
    with refused(Code.BAD_SIGNATURE):
        world.enroll("hospital-a", path)


def test_a_request_with_another_sites_key_in_it_is_refused(world: World) -> None:
    path = world.request("hospital-a")
    theirs = site_side.needed_request(world.sites["hospital-b"])
    for key in ("identity", "ledger", "node"):
        path.write_bytes(altered(world.request("hospital-a").read_bytes(), key, getattr(theirs, key)))
        with refused(Code.BAD_SIGNATURE):
            world.enroll("hospital-a", path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("address", "attacker.example.org:443"),
        ("expires", "2099-01-01T00:00:00Z"),
        ("site", "hospital-b"),
        ("number", 7),
        ("sealing", "00" * 1216),
    ],
)
def test_an_invitation_with_a_swapped_value_is_refused(key: str, value: object, world: World) -> None:
    path = world.enroll("hospital-a")
    path.write_bytes(altered(path.read_bytes(), key, value))
    with refused(Code.BAD_SIGNATURE):
        world.join("hospital-a", path)
    assert world.sites["hospital-a"].accepted() is None


def test_an_invitation_of_a_false_coordinator_is_caught_by_the_fingerprint(
    world: World, tmp_path: Path
) -> None:
    false = make_server(tmp_path / "false", "attacker.example.org:443")
    path = world.mail / "false.json"
    server_enroll(false.root, world.request("hospital-a"), Believed(anyway=True), out=path)
    with pytest.raises(Refused, match="fingerprint is another"):
        world.join("hospital-a", path)
    with pytest.raises(Refused, match="nobody compared"):
        site_join(world.sites["hospital-a"].root, path, Believed())


def test_an_invitation_for_another_site_or_another_key_of_it_is_refused(world: World) -> None:
    path = world.enroll("hospital-b")
    with pytest.raises(Refused, match="another site"):
        world.join("hospital-a", path)
    old = world.enroll("hospital-a")
    keys_rotate(world.sites["hospital-a"].root, "identity", out=world.mail / "new.request.json")
    with pytest.raises(Refused, match="another key"):
        world.join("hospital-a", old)


def test_an_expired_invitation_is_refused_and_a_membership_ends_with_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = world.mail / "short.json"
    said = Believed(anyway=True)
    server_enroll(world.server.root, world.request("hospital-a"), said, out=path, days=1)
    world.join("hospital-a", path)
    monkeypatch.setattr(enrolment, "now", lambda: LATER)
    with pytest.raises(Refused, match="expired"):
        world.join("hospital-a", path)
    with pytest.raises(Refused, match="expired"):
        world.sites["hospital-a"].coordinator(LATER)


def test_an_older_invitation_does_not_come_back(world: World) -> None:
    first = world.enroll("hospital-a").read_bytes()
    second = world.enroll("hospital-a")
    world.join("hospital-a", second)
    (world.mail / "first.json").write_bytes(first)
    with refused(Code.REPLAYED):
        world.join("hospital-a", world.mail / "first.json")


def test_a_rotation_does_not_come_back(world: World) -> None:
    """A stolen old key and every file ever sent do not undo a rotation."""
    site = world.sites["hospital-a"]
    first = world.request("hospital-a").read_bytes()
    world.enroll("hospital-a")
    stolen = site.identity()
    keys_rotate(site.root, "identity", out=world.mail / "r1.json")
    world.enroll("hospital-a", world.mail / "r1.json")
    keys_rotate(site.root, "identity", out=world.mail / "r2.json")
    world.enroll("hospital-a", world.mail / "r2.json")
    for name, data in (("first", first), ("r1", (world.mail / "r1.json").read_bytes())):
        (world.mail / f"{name}.json").write_bytes(data)
        with pytest.raises(Refused):
            server_enroll(world.server.root, world.mail / f"{name}.json", Believed(anyway=True))
    # With the stolen key: a rotation of its own, from the key that once was enrolled.
    thief = SiteHome(world.mail / "thief")
    thief_home = make_site(thief.root, "hospital-a")
    thief_home.identity_key.unlink()
    stolen.save(thief_home.identity_key)
    site_side.write_request(thief_home, name="hospital-a", rows=1200, persons=None, now=LATER)
    keys_rotate(thief.root, "identity", out=world.mail / "stolen.json")
    with pytest.raises(Refused, match="does not vouch"):
        server_enroll(world.server.root, world.mail / "stolen.json", Believed(anyway=True))
    assert world.server.sites()["hospital-a"].identity == site.identity().public


def test_a_rotation_of_one_site_is_no_rotation_of_another(world: World) -> None:
    for name in world.sites:
        world.enroll(name)
    keys_rotate(world.sites["hospital-a"].root, "identity", out=world.mail / "a.json")
    rotated = decode((world.mail / "a.json").read_bytes(), Request)
    with pytest.raises(ValueError, match="somebody else's"):
        Request.model_validate({**rotated.model_dump(), "name": "hospital-b"})


def test_who_is_revoked_stays_out_until_a_person_lets_new_keys_in(world: World) -> None:
    site = world.sites["hospital-a"]
    world.enroll("hospital-a")
    server_revoke(world.server.root, "hospital-a")
    with pytest.raises(Refused, match="does not come back"):
        world.enroll("hospital-a")
    with pytest.raises(Refused, match="revoked"):
        server_invite(world.server.root, ["hospital-a"])
    assert server_invite(world.server.root, []) == []
    for kind in ("identity", "node"):
        keys_rotate(site.root, kind, out=world.mail / "again.json")
    with pytest.raises(Refused, match="nobody compared"):
        server_enroll(world.server.root, world.mail / "again.json", Believed(), out=world.mail / "i.json")
    world.enroll("hospital-a", world.mail / "again.json")
    assert world.server.sites()["hospital-a"].active


@pytest.mark.parametrize("size", [65_537, 5_000_000])
def test_an_oversized_file_is_refused_unparsed(size: int, world: World) -> None:
    path = world.mail / "big.json"
    path.write_bytes(b"[" * size)
    for call in (
        lambda: server_enroll(world.server.root, path, Believed(anyway=True)),
        lambda: site_join(world.sites["hospital-a"].root, path, Believed(anyway=True)),
        lambda: site_peer(world.sites["hospital-a"].root, path, Believed(anyway=True)),
    ):
        with refused(Code.TOO_LARGE):
            call()


def test_hostile_shapes_raise_errors_of_ours_only(world: World) -> None:
    genuine = json.loads(world.request("hospital-a").read_bytes())
    path = world.mail / "odd.json"
    odd: list[object] = [
        None, [], {}, 1, "x", {**genuine, "body": None}, {**genuine, "body": []}, {**genuine, "signature": None},
        {**genuine, "body": {**genuine["body"], "rotations": [{}] * 1000}},
        {**genuine, "body": {**genuine["body"], "rotations": "x"}},
        {**genuine, "body": {**genuine["body"], "identity": "\ud800"}},
        {**genuine, "body": {**genuine["body"], "rows": 10**400}},
        {**genuine, "body": {**genuine["body"], "rows": 1e400}},
    ]  # fmt: skip
    for document in odd:
        path.write_text(json.dumps(document))
        with pytest.raises(FedgenError) as error:
            server_enroll(world.server.root, path, Believed(anyway=True))
        assert error.value.exit_code in {3, 6}
    assert world.server.sites() == {}


def test_a_link_in_a_home_is_not_followed(world: World, tmp_path: Path) -> None:
    """Who can write a link into a shared mount must not make a site read or write elsewhere."""
    site = world.sites["hospital-a"]
    world.join("hospital-a", world.enroll("hospital-a"))
    outside = tmp_path / "outside.json"
    outside.write_bytes(site.invitation.read_bytes())
    site.invitation.unlink()
    site.invitation.symlink_to(outside)
    with pytest.raises(ConfigError, match="symbolic link"):
        site.coordinator(NOW)
    record = world.server.sites_folder / "hospital-a.json"
    (tmp_path / "record.json").write_bytes(record.read_bytes())
    record.unlink()
    record.symlink_to(tmp_path / "record.json")
    with pytest.raises(ConfigError, match="symbolic link"):
        world.server.sites()


def test_a_document_is_never_written_over_something_else(world: World) -> None:
    target = world.mail / "hospital-a.invitation.json"
    for content in ("precious", world.request("hospital-b").read_text()):
        target.write_text(content)
        with pytest.raises(ConfigError, match="not overwritten"):
            world.enroll("hospital-a")
        assert target.read_text() == content
    assert world.server.sites() == {}  # and nobody is enrolled without an invitation to show for it
    target.unlink()
    target.symlink_to(world.mail / "elsewhere")
    with pytest.raises(ConfigError, match="not overwritten"):
        world.enroll("hospital-a")


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_a_home_that_others_may_enter_is_not_used(mode: int, world: World) -> None:
    site = world.sites["hospital-a"]
    path = world.enroll("hospital-a")
    for root in (site.root, world.server.root):
        root.chmod(mode)
    try:
        with pytest.raises(ConfigError, match="open to others"):
            world.join("hospital-a", path)
        with pytest.raises(ConfigError, match="open to others"):
            world.enroll("hospital-b")
    finally:
        for root in (site.root, world.server.root):
            root.chmod(0o700)


def test_a_private_key_open_to_others_signs_nothing(world: World) -> None:
    world.server.identity_key.chmod(0o640)
    with pytest.raises(ConfigError, match="open to others"):
        world.enroll("hospital-a")
    assert world.server.sites() == {}


def test_an_umask_that_opens_everything_opens_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = os.umask(0)
    try:
        site_init(tmp_path / "site", "hospital-a", TERMS)
        enrolment.server_init(tmp_path / "server", "a.example:1")
        server_enroll(tmp_path / "server", Path("hospital-a.request.json"), Believed(anyway=True))
        site_join(tmp_path / "site", Path("hospital-a.invitation.json"), Believed(anyway=True))
        keys_rotate(tmp_path / "site", "identity")
        keys_rotate(tmp_path / "server", "ca")
    finally:
        os.umask(before)
    for root in (tmp_path / "site", tmp_path / "server"):
        for path in [root, *root.rglob("*")]:
            assert not path.lstat().st_mode & 0o077, path


def test_the_attackers_word_for_itself_is_no_word(world: World) -> None:
    """A person who is asked sees the key of the file that will be kept, not of another one."""
    path = world.enroll("hospital-a")
    wait = look_at_invitation(world.sites["hospital-a"].root, path, Believed())
    assert wait is not None
    assert wait.word.shown == shown(world.server.identity().public.hex())
    assert ServerHome(world.server.root).sites()["hospital-a"].active
    assert decode(path.read_bytes(), Invitation).coordinator == wait.word.key
