"""What happens at a site whose identity key is changed, step by step, as docs/spec/enrolment.md says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from support.federation import Desk, small_study
from support.site_homes import invite, make_home

import fedgen.api.serving as serving_module
from fedgen.api.owner import approve, find_study, look
from fedgen.api.serving import composed
from fedgen.enrolment.rotation import rotate
from fedgen.errors import Code, IntegrityError, Refused
from fedgen.messages import Joined, Refusal

if TYPE_CHECKING:
    from pathlib import Path

    from fedgen.messages import Wire


def test_a_site_sits_out_from_the_first_step_to_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_module, "warm", lambda _schema: None)
    desk = Desk(small_study())
    home = make_home(tmp_path / "home", desk)
    approve(home, look(home, desk.study))
    old = home.identity()

    def code(said: Wire) -> Code:
        assert isinstance(said, Refusal), said
        return said.code

    with composed(home) as serving:
        assert isinstance(desk.read(serving.site.handle(desk.join()), old)[0], Joined)
        rotate(home.identity_key, home.rotations, role="site", name="site-01", now=datetime.now(UTC))
        # The accepted invitation names the old key; the daemon still signs with it.
        assert code(desk.read(serving.site.handle(desk.join()), old)[0]) is Code.NOT_ADMITTED
    new = home.identity()
    assert new.public != old.public
    with pytest.raises(Refused, match="another key"), composed(home):
        pass
    # The coordinator took the new request, and the site its invitation.
    invite(home, desk)
    with composed(home) as serving:
        answer = serving.site.handle(desk.join())
        assert code(desk.read(answer, new)[0]) is Code.NOT_APPROVED
        with pytest.raises(IntegrityError):  # it is the new key that signs
            desk.read(answer, old)
        # The study waits for the owner, as if nobody had ever decided.
        assert [it.name for it in home.pending.iterdir()] == [f"{desk.study.study_hash}.json"]
        approve(home, look(home, find_study(home, desk.study.study_hash[:12], unseen=True)))
        assert isinstance(desk.read(serving.site.handle(desk.join()), new)[0], Joined)
