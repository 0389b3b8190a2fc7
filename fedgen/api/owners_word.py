"""What a site asks before it works on a study: does its invitation hold, is its file as it was, did its owner agree?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedgen.errors import Code, ConfigError, Refused

if TYPE_CHECKING:
    from fedgen.config.resolve import ResolvedStudy
    from fedgen.config.site import SiteSpec
    from fedgen.enrolment.documents import Invitation
    from fedgen.enrolment.site_home import SiteHome
    from fedgen.privacy.plan import Plan
    from fedgen.site.approval_book import ApprovalBook


class OwnersWord:
    """The owner's word as it is on the disk now, and not as it was when the daemon started.

    Guarantees:
        - A site's file that says something else than the one the daemon began with means no: a ceiling that was
          lowered must not wait for a restart that nobody thinks of.
        - A yes holds for the coordinator that the owner was shown, or one whose key that one's vouched for.

    Edge cases:
        - Who may watch the daemon, and the declared size, may change: no row depends on them.

    Args:
        home: Read anew each time.
        book: The owner's decisions.
        spec: The site's file as this process read it.
        coordinator: Public key of the coordinator that this process serves, hex.
    """

    def __init__(self, home: SiteHome, book: ApprovalBook, spec: SiteSpec, coordinator: str) -> None:
        self._home, self._book, self._coordinator = home, book, coordinator
        self._spec = _binding(spec)

    def check(self, study_hash: str, study: ResolvedStudy, plan: Plan) -> None:
        """Return if all three are so.

        Raises:
            Refused: ``not-admitted`` or ``not-approved``.
        """
        found = self._invitation()
        vouched = {it.rotation.old for it in found.rotations}
        self._book.check(study_hash, study, plan, coordinators={found.coordinator, *vouched})

    def sealing_key(self) -> bytes:
        """Return the key that updates are sealed to, by the accepted invitation.

        Raises:
            Refused: ``not-admitted``.
        """
        return self._invitation().sealing_key

    def _invitation(self) -> Invitation:
        """Return the accepted invitation, if it and the site's file are still what this process serves."""
        try:
            spec, found = self._home.spec(), self._home.coordinator()
        except ConfigError as error:
            what = "the site has left its coordinator, or its file cannot be read"
            raise Refused(what, code=Code.NOT_ADMITTED) from error
        if _binding(spec) != self._spec:
            raise Refused(
                "the site's file has changed since the daemon was started",
                code=Code.NOT_ADMITTED,
                where=self._home.config,
                hint="restart the daemon",
            )
        if found.coordinator != self._coordinator:
            what = "the invitation is another coordinator's by now"
            raise Refused(what, code=Code.NOT_ADMITTED, hint="restart the daemon")
        return found


def _binding(spec: SiteSpec) -> SiteSpec:
    """Return what of a site's file bears on its rows."""
    return spec.model_copy(update={"observe": None, "declared": None})
