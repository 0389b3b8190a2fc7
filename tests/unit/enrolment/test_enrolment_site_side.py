"""The owner's side: keys made once, invitations accepted in order, peers known, keys changed."""

from __future__ import annotations

import stat
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.enrolling import LATER, NOW, enroll, join, make_server, make_site

from fedgen.crypto.keys import SigningKey
from fedgen.crypto.node_keys import check_node_public
from fedgen.enrolment import rotation, site_side
from fedgen.enrolment.documents import Invitation, Request, instant
from fedgen.enrolment.signed import decode, encode
from fedgen.errors import ConfigError, IntegrityError, Refused, UsageError

if TYPE_CHECKING:
    from fedgen.enrolment.site_home import SiteHome


@pytest.fixture
def site(tmp_path: Path) -> SiteHome:
    return make_site(tmp_path / "a")


@pytest.fixture
def server(tmp_path: Path):
    return make_server(tmp_path / "server")


def test_a_home_is_whole_and_private(site: SiteHome) -> None:
    for path in [site.root, *site.root.rglob("*")]:
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    assert site.spec().name == "hospital-a"
    request = site_side.needed_request(site)
    assert request.identity == site.identity().public.hex()
    assert request.ledger == site.ledger_signing_key().public.hex()
    assert request.identity != request.ledger
    check_node_public(request.node)
    assert site.node_public.read_text() == f"{request.node}\n"
    assert set(site_side.key_names(site)) == set(site_side.SITE_KEYS)
    assert site.accepted() is None
    assert site.peers() == {}


def test_no_private_byte_is_in_what_is_sent(site: SiteHome) -> None:
    sent = site.request.read_bytes()
    for path in (site.identity_key, site.ledger_key):
        assert path.read_text().split()[1].encode() not in sent
    assert site.node_key.read_bytes()[50:90] not in sent


def test_making_keys_again_changes_none(site: SiteHome) -> None:
    before = {path.name: path.read_bytes() for path in site.keys.iterdir()}
    assert site_side.make_site_keys(site) == ()
    assert {path.name: path.read_bytes() for path in site.keys.iterdir()} == before


def test_a_kill_between_the_halves_of_a_node_key_is_mended(site: SiteHome) -> None:
    line = site.node_public.read_text()
    site.node_public.unlink()
    (site.keys / ".identity.key.0123.writing.key").write_text("half")
    site_side.make_site_keys(site)
    assert site.node_public.read_text() == line
    assert sorted(it.name for it in site.keys.iterdir()) == [
        "identity.key",
        "ledger.key",
        "node.key",
        "node.pub",
    ]


def test_joining_keeps_what_the_site_trusts(site: SiteHome, server) -> None:
    with pytest.raises(ConfigError, match="no invitation was accepted"):
        site.coordinator(NOW)
    join(server, site)
    found = site.coordinator(NOW)
    assert found.coordinator_key == server.identity().public
    assert found.sealing_key == server.sealing().public
    assert found.address == "127.0.0.1:8443"
    assert site.ca_certificate.read_text() == found.ca == server.ca.certificate.read_text()
    with pytest.raises(Refused, match="expired"):
        site.coordinator(instant(found.expires))


def test_nothing_is_accepted_that_nobody_compared(site: SiteHome, server) -> None:
    data = enroll(server, site)
    assert site_side.weigh_invitation(site, decode(data, Invitation), NOW).needed
    with pytest.raises(Refused, match="nobody compared"):
        site_side.accept_invitation(site, data, believed=False, now=NOW)
    assert site.accepted() is None
    assert not site.ca_certificate.exists()


def test_a_newer_invitation_of_the_same_coordinator_needs_no_word_and_an_older_one_is_refused(
    site: SiteHome, server
) -> None:
    first, second = enroll(server, site), enroll(server, site, LATER)
    site_side.accept_invitation(site, first, believed=True, now=NOW)
    site_side.accept_invitation(site, second, believed=False, now=LATER)
    site_side.accept_invitation(site, second, believed=False, now=LATER)  # once more changes nothing
    assert site.coordinator(LATER).number == 2
    with pytest.raises(Refused, match="older invitation"):
        site_side.accept_invitation(site, first, believed=True, now=LATER)
    assert site.coordinator(LATER).number == 2


def test_another_coordinator_needs_a_word_and_says_so(site: SiteHome, server, tmp_path: Path) -> None:
    join(server, site)
    other = enroll(make_server(tmp_path / "other"), site)
    word = site_side.weigh_invitation(site, decode(other, Invitation), NOW)
    assert word.needed
    assert "ANOTHER coordinator" in word.why
    with pytest.raises(Refused):
        site_side.accept_invitation(site, other, believed=False, now=NOW)
    site_side.accept_invitation(site, other, believed=True, now=NOW)
    assert site.coordinator(NOW).coordinator == word.key


def test_a_broken_key_in_an_invitation_is_refused_before_it_costs_a_round(site: SiteHome, server) -> None:
    invitation = decode(enroll(server, site), Invitation)
    for changes in ({"sealing": "ff" * 1216}, {"ca": server.tls.certificate.read_text()}):
        data = encode(invitation.model_copy(update=changes), server.identity())
        with pytest.raises(IntegrityError):
            site_side.accept_invitation(site, data, believed=True, now=NOW)
    assert site.accepted() is None


def test_an_accepted_invitation_that_was_changed_on_the_disk_is_noticed(site: SiteHome, server) -> None:
    join(server, site)
    site.invitation.write_text(site.invitation.read_text().replace("127.0.0.1", "127.0.0.9"))
    with pytest.raises(IntegrityError):
        site.coordinator(NOW)
    site.invitation.unlink()
    site.invitation.symlink_to(site.request)
    with pytest.raises(ConfigError, match="symbolic link"):
        site.coordinator(NOW)


# -- peers -------------------------------------------------------------------------------------------


def test_a_peer_is_trusted_once_its_fingerprint_was_compared(site: SiteHome, tmp_path: Path) -> None:
    other = make_site(tmp_path / "b", "hospital-b")
    data = other.request.read_bytes()
    with pytest.raises(Refused, match="nobody compared"):
        site_side.accept_peer(site, data, believed=False)
    assert site.peers() == {}
    site_side.accept_peer(site, data, believed=True)
    assert site.peers() == {"hospital-b": other.identity().public}
    site_side.accept_peer(site, data, believed=False)  # known by now


def test_a_peer_that_rotates_vouches_for_itself_and_old_requests_do_not_come_back(
    site: SiteHome, tmp_path: Path
) -> None:
    other = make_site(tmp_path / "b", "hospital-b")
    old = other.request.read_bytes()
    site_side.accept_peer(site, old, believed=True)
    _, new = site_side.rotate_site_key(other, "identity", LATER)
    site_side.accept_peer(site, new, believed=False)
    assert site.peers() == {"hospital-b": other.identity().public}
    word = site_side.weigh_peer(site, decode(old, Request))
    assert word.needed  # the old key is another key now, for which the new one does not vouch
    with pytest.raises(Refused):
        site_side.accept_peer(site, old, believed=False)


def test_a_site_is_no_peer_of_itself_and_no_two_peers_share_a_key(site: SiteHome, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="itself"):
        site_side.accept_peer(site, site.request.read_bytes(), believed=True)
    other = make_site(tmp_path / "b", "hospital-b")
    site_side.accept_peer(site, other.request.read_bytes(), believed=True)
    request = site_side.needed_request(other)
    twin = encode(request.model_copy(update={"name": "hospital-c"}), other.identity())
    with pytest.raises(Refused, match="same key"):
        site_side.accept_peer(site, twin, believed=True)


def test_a_peer_file_under_another_name_or_changed_is_noticed(site: SiteHome, tmp_path: Path) -> None:
    other = make_site(tmp_path / "b", "hospital-b")
    site_side.accept_peer(site, other.request.read_bytes(), believed=True)
    path = site.peers_folder / "hospital-b.json"
    path.rename(site.peers_folder / "hospital-c.json")
    with pytest.raises(IntegrityError, match="file's name"):
        site.peers()
    (site.peers_folder / "hospital-c.json").rename(path)
    path.write_text(path.read_text().replace('"rows": 1200', '"rows": 1300'))
    with pytest.raises(IntegrityError):
        site.peers()


# -- changing keys -----------------------------------------------------------------------------------


def test_an_identity_changes_and_the_ledger_key_stays(site: SiteHome) -> None:
    before, ledger = site.identity(), site.ledger_signing_key().public
    request, data = site_side.rotate_site_key(site, "identity", LATER)
    assert site.identity().public != before.public
    assert site.ledger_signing_key().public == ledger
    assert request.number == 2
    assert request.rotations[-1].rotation.old == before.public.hex()
    assert request.rotations[-1].rotation.new == site.identity().public.hex()
    assert decode(data, Request) == request == site_side.own_request(site)
    assert not (site.keys / "identity.key.next").exists()


def test_a_node_key_changes_alone(site: SiteHome) -> None:
    before, identity = site.node_public.read_text(), site.identity().public
    request, _ = site_side.rotate_site_key(site, "node", LATER)
    assert site.node_public.read_text() != before
    assert site.node_public.read_text().strip() == request.node
    assert site.identity().public == identity
    assert request.rotations == ()


def test_the_ledgers_key_does_not_change(site: SiteHome) -> None:
    with pytest.raises(UsageError, match="ledger"):
        site_side.rotate_site_key(site, "ledger", LATER)


def test_an_invitation_to_the_old_key_no_longer_holds(site: SiteHome, server) -> None:
    join(server, site)
    site_side.rotate_site_key(site, "identity", LATER)
    with pytest.raises(Refused, match="another key"):
        site.coordinator(LATER)
    invitation = enroll(server, site, LATER)
    site_side.accept_invitation(site, invitation, believed=False, now=LATER)
    assert site.coordinator(LATER).number == 2


def test_a_lost_key_is_replaced_and_nothing_vouches_for_the_new_one(site: SiteHome, server) -> None:
    join(server, site)
    site_side.rotate_site_key(site, "identity", NOW)
    enroll(server, site)
    with pytest.raises(ConfigError, match="is there"):
        site_side.replace_lost_key(site, "identity", LATER)
    site.identity_key.unlink()
    with pytest.raises(ConfigError):
        site_side.rotate_site_key(site, "identity", LATER)
    request, data = site_side.replace_lost_key(site, "identity", LATER)
    assert request.rotations == ()
    from fedgen.enrolment import server_side

    with pytest.raises(Refused, match="does not vouch"):
        server_side.enroll(server, data, believed=True, now=LATER)


STEPS = ("make_key", "write_private", "replace", "write_request")


class Killed(BaseException):
    pass


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [False, True])
def test_a_rotation_killed_at_any_step_is_finished(
    step: str, after, site: SiteHome, server, monkeypatch: pytest.MonkeyPatch
) -> None:
    enroll(server, site)
    old = site.identity().public.hex()
    place = {
        "make_key": (rotation, "make_key"),
        "write_private": (rotation, "write_private"),
        "replace": (Path, "replace"),
        "write_request": (site_side, "write_request"),
    }[step]
    real = getattr(*place)

    def killed(*args, **more):
        if step == "replace" and not str(args[0]).endswith(".next"):
            return real(*args, **more)
        if after:
            real(*args, **more)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(*place, killed)
        with pytest.raises(Killed):
            site_side.rotate_site_key(site, "identity", LATER)
    between = site.identity().public.hex()
    kept = rotation.read_rotations(site.rotations)
    assert between == old or kept[-1].rotation.new == between  # never a key that nobody vouches for
    site_side.rotate_site_key(site, "identity", LATER)
    request = site_side.needed_request(site)
    assert request.identity == site.identity().public.hex() != old
    # Killed after the very last write, the command had done its work: it then begins another rotation.
    assert len(rotation.read_rotations(site.rotations)) == (
        2 if (step, after) == ("write_request", True) else 1
    )
    assert not (site.keys / "identity.key.next").exists()
    enroll(server, site, LATER)


def test_another_change_amid_a_killed_rotation_still_lets_everybody_follow(
    site: SiteHome, server, monkeypatch: pytest.MonkeyPatch
) -> None:
    enroll(server, site)
    site_side.rotate_site_key(site, "identity", NOW)

    def killed(*_args):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(Killed):
            site_side.rotate_site_key(site, "identity", LATER)
    request, data = site_side.rotate_site_key(site, "node", LATER)
    assert request.identity == site.identity().public.hex()
    assert len(request.rotations) == 1
    from fedgen.enrolment import server_side

    server_side.enroll(server, data, believed=False, now=LATER)


def test_a_long_chain_keeps_the_newest(site: SiteHome) -> None:
    keys = [site.identity().public.hex()]
    for number in range(18):
        request, data = site_side.rotate_site_key(site, "identity", NOW + timedelta(minutes=number))
        keys.append(request.identity)
    assert [it.rotation.old for it in request.rotations] == keys[2:18]
    assert decode(data, Request) == request


def test_rotations_that_were_changed_are_noticed(site: SiteHome) -> None:
    site_side.rotate_site_key(site, "identity", NOW)
    site.rotations.write_text(site.rotations.read_text().replace('"number": 1', '"number": 2'))
    with pytest.raises(IntegrityError, match="rotations"):
        site_side.rotate_site_key(site, "identity", LATER)


def test_a_key_open_to_others_is_not_used(site: SiteHome) -> None:
    for path in (site.identity_key, site.ledger_key, site.node_key):
        path.chmod(0o644)
        with pytest.raises(ConfigError, match="open to others"):
            site_side.key_names(site)
        path.chmod(0o600)
    assert isinstance(site.identity(), SigningKey)
