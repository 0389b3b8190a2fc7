"""What a policy pack has to be told of rows and of a run: facts that a file states, and no engine can find out.

The same section stands in a site's file, where the site answers for it, and in a study, for a simulation.
**A fact left out is "nobody said", and the engine and the run gate take that as no.**
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Final, Literal, TypeVar

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from fedgen.config.base import Frozen
from fedgen.config.fields import Count, Text, Word
from fedgen.schema.yamlsource import Flaw

S = TypeVar("S", bound=Frozen)
MAX_PACKS: Final = 8
_WORDS: Final = 64


def _zoned(moment: datetime) -> datetime:
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise ValueError("must carry an offset, such as 2025-10-01T00:00:00Z")
    return moment


Instant = Annotated[datetime, AfterValidator(_zoned)]
Words = Annotated[tuple[Text, ...], Field(max_length=_WORDS)]
Basis = Literal[
    "consent", "contract", "legal_obligation", "vital_interests", "public_task", "legitimate_interest"
]
Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2,3}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
PackKeys = Annotated[tuple[Sha256, ...], Field(max_length=64)]


class RecordsSpec(Frozen):
    """What holds for every row of a source.

    Attributes:
        legal_basis: The basis of GDPR Art. 6(1); left out, there is none.
        collected_for: The purposes the rows were collected for.
        categories: Ordinary categories of data.
        special_categories: Special categories (Art. 9(1)); ``[]`` says there are none.
        art9_condition: The condition of Art. 9(2), such as ``9(2)(j)``.
        sensitive: Whether they are sensitive personal information (1798.140(ae)).
        retention_rule: Name of a rule of the packs; ``default`` if left out.
        collected_at: When the rows were collected, the earliest of them if they differ; left out, no row is used.
        last_activity_at: When the person was last active; ``collected_at`` if left out.
    """

    legal_basis: Basis | None = None
    collected_for: Words | None = None
    categories: Words | None = None
    special_categories: Words | None = None
    art9_condition: Text | None = None
    sensitive: bool | None = None
    retention_rule: Word | None = None
    collected_at: Instant | None = None
    last_activity_at: Instant | None = None


class DestinationSpec(Frozen):
    """Where updates, checkpoints and the model go.

    Attributes:
        country: ISO 3166 code of where the coordinator is.
        recipient: Who that is to the controller.
        safeguards: Tools of Art. 46, such as ``scc``.
        tia: Whether a transfer impact assessment is on file.
        dpf_certified: Whether the importer is on the list of the Data Privacy Framework.
        pipeda_commercial: Whether the importer is an organisation under PIPEDA.
    """

    country: Country | None = None
    recipient: Literal["controller", "processor", "service_provider", "contractor", "third_party"] | None = (
        None
    )
    safeguards: Words = ()
    tia: bool = False
    dpf_certified: bool = False
    pipeda_commercial: bool = False


class DpiaSpec(Frozen):
    """A data-protection impact assessment (GDPR Art. 35); see :class:`fedgen.policy.run_facts.Dpia`."""

    id: Text
    high_residual_risk: bool | None = None
    consultation_id: Text | None = None
    review_by: date | None = None


class RecipientSpec(Frozen):
    """Somebody who handles the data; see :class:`fedgen.policy.run_facts.Recipient`."""

    name: Text
    kind: Literal["processor", "service_provider", "contractor", "third_party"]
    contract_id: Text | None = None
    instructions_sha256: Sha256 | None = None
    subprocessors_known: bool | None = None
    terms: Words = ()


class DocumentsSpec(Frozen):
    """The documents behind a run, and what a run is; each is a field of :class:`fedgen.policy.run_facts.RunFacts`.

    What the site can see for itself is not asked: the purpose, the basis and the categories of the rows, whether
    updates are noised or summed unseen.

    Attributes:
        destination: Where updates and models go.
        is_sale_or_share: Whether that is a sale or sharing (1798.140(ad), (ah)).
        information_society_service: Whether consent was given to an online service (Art. 8).
        significant_decision: Whether decisions of significant effect are made.
        joint_controllers: Whether two or more controllers decide purposes and means.
        arrangement_id: Their arrangement (Art. 26).
        recipients: Everybody else who handles the data; ``[]`` says nobody does.
        lia_id: The legitimate-interest assessment.
        compatibility_id: The assessment of Art. 6(4), or of 11 CCR 7002.
        dpia: The impact assessment.
        needs_dpia: Whether one is needed.
        notice_version: Version of the notice served to everybody in the run.
        notice_covers: Whether it names this purpose, the recipients and the retention.
        notice_exemption: Why none is owed (Art. 14(5)).
        research_derogation: Whether the run claims Art. 89.
        research_safeguards_id: Its safeguards.
        solely_automated: Whether it decides about people alone (Art. 22).
        automated_basis: ``contract``, ``law`` or ``explicit_consent``.
        review_route_id: How a person asks a human to look.
        loosened: Settings less private than the default; ``[]`` says there are none.
        approver: Who answers for these.
        tls: Whether transport is encrypted.
        mutual_tls: Whether both sides show certificates.
        encryption_at_rest: Whether storage is encrypted.
        serves_several: Whether a service provider trains one model for several businesses (11 CCR 7050).
        inputs_deidentified: Whether its inputs are deidentified.
        every_beneficiary_contracts: Whether each business contracts for the shared model.
        combines_clients: Whether personal information is combined across clients.
        needs_risk_assessment: Whether 11 CCR 7150 asks for one.
        risk_assessment_id: Of that assessment.
        processing_since: First day of the processing.
        admt: Whether significant decisions are automated.
        admt_notice_id: The pre-use notice.
        minors: Whether people under 16 are in the run and data are sold or shared.
        minor_opt_ins_checked: Whether their opt-ins are checked for each record.
        training_unlawful: Whether earlier training of this model was found unlawful.
        unlawful_assessment_id: The assessment that lets it go on.
    """

    destination: DestinationSpec | None = None
    is_sale_or_share: bool | None = None
    information_society_service: bool | None = None
    significant_decision: bool | None = None
    joint_controllers: bool | None = None
    arrangement_id: Text | None = None
    recipients: Annotated[tuple[RecipientSpec, ...], Field(max_length=_WORDS)] | None = None
    lia_id: Text | None = None
    compatibility_id: Text | None = None
    dpia: DpiaSpec | None = None
    needs_dpia: bool | None = None
    notice_version: Count | None = None
    notice_covers: bool | None = None
    notice_exemption: Text | None = None
    research_derogation: bool | None = None
    research_safeguards_id: Text | None = None
    solely_automated: bool | None = None
    automated_basis: Literal["contract", "law", "explicit_consent"] | None = None
    review_route_id: Text | None = None
    loosened: Words | None = None
    approver: Text | None = None
    tls: bool | None = None
    mutual_tls: bool | None = None
    encryption_at_rest: bool | None = None
    serves_several: bool | None = None
    inputs_deidentified: bool | None = None
    every_beneficiary_contracts: bool | None = None
    combines_clients: bool | None = None
    needs_risk_assessment: bool | None = None
    risk_assessment_id: Text | None = None
    processing_since: date | None = None
    admt: bool | None = None
    admt_notice_id: Text | None = None
    minors: bool | None = None
    minor_opt_ins_checked: bool | None = None
    training_unlawful: bool | None = None
    unlawful_assessment_id: Text | None = None


class Stated(Frozen):
    """What somebody states for one site: of its rows, and of the documents behind a run.

    Attributes:
        records: Of the rows.
        documents: Of the run.
    """

    records: RecordsSpec | None = None
    documents: DocumentsSpec | None = None

    def over(self, other: Stated) -> Stated:
        """Return these facts, and ``other``'s where this one is silent; key by key."""
        return Stated(
            records=_over(self.records or RecordsSpec(), other.records or RecordsSpec()),
            documents=_over(self.documents or DocumentsSpec(), other.documents or DocumentsSpec()),
        )


class SitePolicySpec(Stated):
    """The ``policy`` section of a site's file: what the site enforces, whatever a study asks.

    Attributes:
        packs: The site's own packs, by name or path; a study can add some, and never take one away.
        store: The site's consent store: a path, or a PostgreSQL address.
        store_key: File of the store's secret; beside a store that is a file.
        pack_keys: Ed25519 public keys, hex, whose signatures on packs count.
    """

    packs: Annotated[tuple[Text, ...], Field(max_length=MAX_PACKS)] = ()
    store: Annotated[Text | None, Field(repr=False)] = None
    store_key: Text | None = None
    pack_keys: PackKeys | None = None

    @model_validator(mode="after")
    def _packs_have_what_they_read(self) -> SitePolicySpec:
        if self.packs and self.store is None:
            raise Flaw("packs decide from a consent store", key=("store",), hint="name the site's store")
        if self.packs and self.records is None:
            hint = "say at least legal_basis and collected_at"
            raise Flaw("packs must be told what holds for the rows", key=("records",), hint=hint)
        return self


def _over(mine: S, other: S) -> S:
    """Return ``other`` with every key that ``mine`` states."""
    stated = {name: value for name, value in mine if value is not None}
    return other.model_copy(update=stated)
