"""Each thief of docs/reference/threat-model.md, with the very key it has, at what the table says that it cannot do.

And at what the table says that it can: else the test would hold for a thief who has nothing.
"""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from support.enrolling import NOW, enroll, join, make_server, make_site
from support.federation import Desk, small_study
from support.peers import Ask, Peer, Wires, honest, open_bureau
from support.site_homes import invite, make_home

import fedgen.api.serving as serving_module
from fedgen.api.owner import approve, look
from fedgen.api.serving import approval_book, composed
from fedgen.coordinator.rollcall import RollCall
from fedgen.coordinator.rounds import Ask as Asked
from fedgen.coordinator.rounds import Round
from fedgen.crypto.certificates import issue, make_authority, signed_by
from fedgen.crypto.envelope import Expectation, open_frame, peek
from fedgen.crypto.keys import SealingKey, SigningKey
from fedgen.enrolment import server_side, site_side
from fedgen.enrolment.documents import Invitation, Rotation, SignedRotation, moment
from fedgen.enrolment.signed import decode, encode
from fedgen.errors import Code, ConfigError, FedgenError, IntegrityError, Refused
from fedgen.ledger.store import Ledger
from fedgen.messages import Confirmed, Joined, Refusal, Trained

if TYPE_CHECKING:
    from pathlib import Path

    from fedgen.crypto.keys import VerifyKey
    from fedgen.enrolment.site_home import SiteHome
    from fedgen.messages import Wire


@pytest.fixture(autouse=True)
def _cold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_module, "warm", lambda _schema: None)


@pytest.fixture
def desk() -> Desk:
    return Desk(small_study())


@pytest.fixture
def home(tmp_path: Path, desk: Desk) -> SiteHome:
    return make_home(tmp_path / "home", desk)


def _raw(home: SiteHome, *requests: bytes) -> list[bytes]:
    with composed(home) as serving:
        return [serving.site.handle(it) for it in requests]


def _said(home: SiteHome, desk: Desk, *requests: bytes) -> list[Wire]:
    return [desk.read(it, home.identity())[0] for it in _raw(home, *requests)]


def _code(message: Wire) -> Code:
    assert isinstance(message, Refusal), message
    return message.code


def _peer(desk: Desk, name: str = "site-01", key: SigningKey | None = None) -> Peer:
    return Peer(name, desk, key=key or SigningKey.generate())


def _ask(peer: Peer) -> Ask:
    return peer.opened(peer.desk.train(1))


def _round(peer: Peer, *, roster: dict[str, VerifyKey], confirms: bool = False) -> Round:
    ask = _ask(peer).train
    asked = Asked(ask.study_hash, ask.run, ask.round, ask.attempt, ask.parameters, 1, ask.digest)
    return Round(asked, roster, dict.fromkeys(roster, 1.0), peer.desk.sealing, confirms=confirms)


# -- a site's identity key ---------------------------------------------------------------------------


def test_a_thief_of_a_sites_identity_says_no_and_sends_a_false_update_for_it(desk: Desk) -> None:
    site = _peer(desk)
    thief = _peer(desk, key=site.key)
    roster = {"site-01": site.key.verify_key}
    assert _round(site, roster=roster).accept(thief.refusal(_ask(thief), Code.DATA)).code is Code.DATA
    assert _round(site, roster=roster).accept(thief.trained(_ask(thief))).code is None
    stranger = _peer(desk)
    assert _round(site, roster=roster).accept(stranger.trained(_ask(stranger))).code is Code.BAD_SIGNATURE


def test_a_thief_of_a_sites_identity_writes_no_ledger_and_approves_nothing_elsewhere(
    home: SiteHome, desk: Desk, tmp_path: Path
) -> None:
    approve(home, look(home, desk.study))
    _raw(home, desk.join(), desk.train(1))
    with (
        pytest.raises(IntegrityError),
        Ledger.open(home.ledger, origin="fedgen/site/site-01", signing_key=home.identity()),
    ):
        pass
    # An approval that the key signs is one where it lies: in a home of the thief's it opens nothing here.
    other = small_study(training={"rounds": 2})
    lair = approval_book(home, "site-01")
    lair = type(lair)(tmp_path / "lair", tmp_path / "waiting", "site-01", home.identity().verify_key)
    lair.decide(other.study_hash, "approved", home.identity(), epsilon=1e9, delta=0.5)
    (refusal,) = _said(home, desk.of(study=other), desk.of(study=other).join())
    assert _code(refusal) is Code.NOT_APPROVED
    # Who may write the home is another matter, as the page says.
    shutil.copy(tmp_path / "lair" / f"{other.study_hash}.json", home.approvals)
    assert lair.decision(other.study_hash) is not None
    assert approval_book(home, "site-01").decision(other.study_hash) is not None


# -- a site's ledger and node keys -------------------------------------------------------------------


def test_a_thief_of_the_ledgers_key_does_not_speak_for_the_site(home: SiteHome, desk: Desk) -> None:
    def roll(key: SigningKey) -> tuple[str, ...]:
        call = RollCall(
            desk.study.study_hash, desk.run, {"site-01": home.identity().verify_key}, desk.sealing, done=0
        )
        call.accept(1, _peer(desk, key=key).joined())
        return call.close().sites

    assert roll(home.ledger_signing_key()) == ()
    assert roll(home.identity()) == ("site-01",)


def test_a_node_key_is_no_key_of_ours(tmp_path: Path) -> None:
    """It lets the relay in at Flower's routes; nothing that is signed or sealed takes it for one of its own."""
    site = make_site(tmp_path / "site")
    for kind in (SigningKey, SealingKey):
        with pytest.raises(ConfigError, match="not a fedgen key file"):
            kind.load(site.node_key)


# -- the coordinator's identity key ------------------------------------------------------------------


def test_a_thief_of_the_coordinators_identity_asks_what_was_approved_and_nothing_else(
    home: SiteHome, desk: Desk
) -> None:
    approve(home, look(home, desk.study))
    thief = Desk(desk.study, signing=desk.signing)  # and no other key
    as_it_was = [
        desk.join(),  # kept from the wire, or made anew: the sealing key in it is public
        thief.train(1),
    ]
    joined, answer = _raw(home, *as_it_was)
    assert isinstance(desk.read(joined, home.identity())[0], Joined)
    assert isinstance(desk.read(answer, home.identity())[0], Trained)  # it costs the site what was approved
    with pytest.raises(IntegrityError) as unread:
        thief.read(answer, home.identity())
    assert unread.value.code is Code.WRONG_RECIPIENT
    other = thief.of(study=small_study(training={"rounds": 2}))
    assert _code(_said(home, thief, thief.join())[0]) is Code.NOT_ADMITTED
    assert _code(_said(home, other, other.of(sealing=desk.sealing).join())[0]) is Code.NOT_APPROVED
    dear = small_study(privacy={"noise_multiplier": 0.1})
    assert (
        _code(_said(home, desk, desk.of(study=dear).join())[0]) is Code.BUDGET
    )  # over the ceiling, whatever was approved


def test_an_invitation_of_the_thief_is_the_coordinators_once_an_owner_accepts_it(
    home: SiteHome, desk: Desk
) -> None:
    """What the page says that nothing stops: a leaked identity wants a new home, not a rotation."""
    thief = Desk(desk.study, signing=desk.signing)
    approve(home, look(home, desk.study))
    assert _code(_said(home, thief, thief.join())[0]) is Code.NOT_ADMITTED
    invite(home, thief)
    joined, answer = _raw(home, thief.join(), thief.train(1))
    assert isinstance(thief.read(joined, home.identity())[0], Joined)
    assert isinstance(thief.read(answer, home.identity())[0], Trained)


# -- the coordinator's sealing key -------------------------------------------------------------------


def _opens(key: SealingKey, envelope: bytes, identity: SigningKey) -> bool:
    expect = Expectation(study_hash=None, run=None, recipient="coordinator", sender=peek(envelope).sender)
    try:
        open_frame(envelope, verify_key=identity.verify_key, sealing_key=key, expect=expect)
    except IntegrityError:
        return False
    return True


def test_a_thief_of_the_sealing_key_reads_what_was_recorded_and_nothing_after_its_rotation(
    home: SiteHome, desk: Desk
) -> None:
    approve(home, look(home, desk.study))
    _, recorded = _raw(home, desk.join(), desk.train(1))
    assert _opens(desk.sealing, recorded, home.identity())
    following = desk.of(sealing=SealingKey.generate())
    invite(home, following)
    # What is asked in the old key's name is refused from then on, kept from the wire or not.
    assert [_code(it) for it in _said(home, desk, desk.join(), desk.train(2))] == [Code.NOT_ADMITTED] * 2
    _, sealed = _raw(home, following.join(), following.train(2))
    assert _opens(following.sealing, sealed, home.identity())
    assert not _opens(desk.sealing, sealed, home.identity())


# -- what was signed before a rotation, a change of coordinator, or a no ------------------------------


def _rotated(desk: Desk) -> tuple[Desk, SignedRotation]:
    following = desk.of(signing=SigningKey.generate())
    rotation = Rotation(
        role="coordinator",
        name="desk",
        number=1,
        old=desk.signing.public.hex(),
        new=following.signing.public.hex(),
        issued=moment(datetime.now(UTC)),
    )
    return following, SignedRotation.make(rotation, desk.signing)


def test_what_an_old_key_signed_is_nothing_after_a_rotation(home: SiteHome, desk: Desk) -> None:
    approve(home, look(home, desk.study))
    recorded = [desk.join(), desk.train(1)]
    assert isinstance(_said(home, desk, recorded[0])[0], Joined)
    following, rotation = _rotated(desk)
    invite(home, following, rotations=(rotation,))
    assert [_code(it) for it in _said(home, following, *recorded)] == [Code.BAD_SIGNATURE] * 2
    answers = _said(home, following, following.join(), following.train(1))
    assert [type(it) for it in answers] == [Joined, Trained]


def test_a_kept_invitation_to_a_study_that_was_taken_back_opens_nothing(home: SiteHome, desk: Desk) -> None:
    from fedgen.api.owner import revoke

    approve(home, look(home, desk.study))
    recorded = [desk.join(), desk.train(1), desk.train(2)]
    assert [type(it) for it in _said(home, desk, *recorded[:2])] == [Joined, Trained]
    revoke(home, desk.study.study_hash[:12])
    for kept in recorded:
        assert _code(_said(home, desk, kept)[0]) in {Code.NOT_APPROVED, Code.NOT_ADMITTED}


def test_an_update_that_waits_to_be_summed_is_not_vouched_for_after_a_no(home: SiteHome, desk: Desk) -> None:
    from fedgen.api.owner import revoke

    approve(home, look(home, desk.study))
    assert [type(it) for it in _said(home, desk, desk.join(), desk.train(1))] == [Joined, Trained]
    assert isinstance(_said(home, desk, desk.confirm(1))[0], Confirmed)
    revoke(home, desk.study.study_hash[:12])
    assert _code(_said(home, desk, desk.confirm(1))[0]) is Code.NOT_APPROVED


# -- certificates ------------------------------------------------------------------------------------


def test_a_thief_of_the_servers_tls_key_signs_no_other_certificate() -> None:
    authority = make_authority("fedgen test", days=10, now=NOW)
    stolen = issue(authority, ["coordinator.example.org"], days=5, now=NOW)
    below = issue(stolen, ["coordinator.example.org"], days=5, now=NOW)  # it can write one
    assert signed_by(stolen[1], authority[1])
    assert not signed_by(below[1], authority[1])  # under which nobody's trust ends


# -- who is put out ----------------------------------------------------------------------------------


class _Roster(dict[str, "VerifyKey"]):
    """Keys that go away, as :class:`fedgen.api.roster.LiveRoster` lets them."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.out: set[str] = set()

    def __getitem__(self, name: str) -> VerifyKey:
        if name in self.out:
            raise KeyError(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        return default if name in self.out else super().get(name, default)


@pytest.mark.parametrize("confirms", [False, True])
def test_what_a_site_sent_before_it_was_put_out(desk: Desk, confirms: bool) -> None:  # noqa: FBT001
    """It stays in the sum that it is in; where sites are asked once more, it is not in one yet."""
    site = _peer(desk)
    roster = _Roster({"site-01": site.key.verify_key})
    round_ = _round(site, roster=roster, confirms=confirms)
    assert round_.accept(site.trained(_ask(site))).code is None
    roster.out.add("site-01")
    if confirms:
        confirmed = site.confirmed(site.opened(desk.confirm(1)))
        assert round_.confirm(confirmed).code is Code.UNKNOWN_SENDER
    closed = round_.close()
    assert closed.aggregate.sites == (() if confirms else ("site-01",))
    again = _round(site, roster=roster)
    assert again.accept(site.trained(_ask(site))).code is Code.UNKNOWN_SENDER


def test_a_site_that_is_put_out_in_mid_run_is_missing_from_the_next_round_on(
    tmp_path: Path,
) -> None:
    desk = Desk(small_study(sites=3, training={"rounds": 3, "quorum": 2}))
    peers = honest(desk)
    bureau = open_bureau(tmp_path, desk, peers)
    roster = _Roster(bureau.coordinator._roster)
    bureau.coordinator._roster = roster

    def out(peer: Peer, ask: Ask) -> None:
        if ask.train.round == 2:
            roster.out.add(peer.name)

    peers[2].script = out
    outcome = bureau.run(Wires(peers))
    assert outcome.outcome == "completed"
    assert [record.sites for record in bureau.records][1:] == [("site-01", "site-02")] * 2


def test_an_expired_node_and_a_revoked_one_are_both_unknown(tmp_path: Path) -> None:
    server, site = make_server(tmp_path / "server"), make_site(tmp_path / "site")
    join(server, site)
    record = server_side.revoke(server, "hospital-a", now=NOW)
    assert not record.active
    with pytest.raises(Refused, match="does not come back"):
        enroll(server, site)


# -- files of another site, or of another time -------------------------------------------------------


def test_files_of_another_site_open_nothing_here(tmp_path: Path, desk: Desk) -> None:
    """Two homes whose files were mixed up: by a backup, or by who hopes for another site's approvals."""
    here = make_home(tmp_path / "here", desk)
    there = make_home(tmp_path / "there", desk, name="site-02")
    approve(there, look(there, desk.study))
    assert isinstance(_said(there, desk, desk.join())[0], Joined)
    for name in ("approvals", "pending"):
        shutil.copytree(getattr(there, name), getattr(here, name), dirs_exist_ok=True)
    assert _code(_said(here, desk, desk.join())[0]) is Code.NOT_APPROVED
    mine = {path: path.read_bytes() for path in (here.invitation, here.identity_key, here.ledger_key)}
    approve(here, look(here, desk.study))
    assert isinstance(_said(here, desk, desk.join())[0], Joined)
    for path, content in mine.items():
        shutil.copy(there.root / path.relative_to(here.root), path)
        with pytest.raises(FedgenError):
            _said(here, desk, desk.join())
        path.write_bytes(content)
    assert isinstance(_said(here, desk, desk.join())[0], Joined)


def test_a_clock_that_is_set_back_revives_an_invitation_and_no_budget(home: SiteHome, desk: Desk) -> None:
    """The one is not defended and said so; the other is counted by what is on record."""
    invitation = decode(home.invitation.read_bytes(), Invitation)
    late = datetime.now(UTC) + timedelta(days=400)
    with pytest.raises(Refused, match="expired"):
        invitation.check_for("site-01", home.identity().public, late)
    invitation.check_for("site-01", home.identity().public, late - timedelta(days=390))
    with pytest.raises(Refused, match="it is earlier here"):
        invitation.check_for("site-01", home.identity().public, late - timedelta(days=900))


def test_a_request_of_before_a_rotation_gives_no_site_its_old_keys_back(tmp_path: Path) -> None:
    server, site = make_server(tmp_path / "server"), make_site(tmp_path / "site")
    peer = make_site(tmp_path / "peer", "hospital-b")
    kept = site.request.read_bytes()
    join(server, site)
    site_side.accept_peer(peer, kept, believed=True)
    for kind in ("node", "identity"):
        site_side.rotate_site_key(site, kind, NOW)
        server_side.enroll(server, site.request.read_bytes(), believed=False, now=NOW)
        site_side.accept_peer(peer, site.request.read_bytes(), believed=False)
        with pytest.raises(Refused):
            server_side.enroll(server, kept, believed=True, now=NOW)
        with pytest.raises(Refused):
            site_side.accept_peer(peer, kept, believed=False)
    assert server.sites()["hospital-a"].identity == site.identity().public
    assert peer.peers()["hospital-a"] == site.identity().public


def test_a_document_with_a_good_signature_under_another_kind_is_none(tmp_path: Path, desk: Desk) -> None:
    """One key signs requests, approvals and messages: none of them passes for another."""
    site = make_site(tmp_path / "site")
    request = site_side.needed_request(site)
    data = encode(request, site.identity())
    with pytest.raises(FedgenError):
        decode(data.replace(b"fedgen-request-1", b"fedgen-invitation-1"), Invitation)
    peer = _peer(desk, key=site.identity())
    envelope = peer.joined()
    label, body, signature = "enrolment/request", envelope[:-64], envelope[-64:]
    with pytest.raises(IntegrityError):
        site.identity().verify_key.verify(label, body, signature)
