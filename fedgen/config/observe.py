"""The section ``observe`` of a site's and of a server's file: who may watch, and how."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fedgen.config.base import Frozen
from fedgen.config.fields import Text
from fedgen.errors import ConfigError
from fedgen.observe.server import DEFAULT, split
from fedgen.observe.tracing import check_endpoint
from fedgen.schema.yamlsource import Flaw


class ObserveSpec(Frozen):
    """What an operator may watch; a text alone is the address.

    Attributes:
        address: Where health, readiness and metrics are served; numeric host and port.
        beyond_loopback: Whether other machines may ask; a probe of Kubernetes and a scraper need it.
        metrics: Whether metrics are served; needs the extra ``observe``.
        logs: ``json`` for machines, ``text`` for people.
        traces: Where spans are sent, as a URL without a password; None sends none. Needs the extra ``otel``.
    """

    address: Text = DEFAULT
    beyond_loopback: bool = False
    metrics: bool = True
    logs: Literal["json", "text"] = "text"
    traces: Annotated[Text | None, Field(repr=False)] = None

    @model_validator(mode="before")
    @classmethod
    def _address_alone(cls, data: Any) -> Any:
        return {"address": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _addresses(self) -> ObserveSpec:
        for key, check in (("address", self._listens), ("traces", self._sends)):
            try:
                check()
            except ConfigError as error:
                raise Flaw(error.what, hint=error.hint, key=(key,)) from error
        return self

    def _listens(self) -> None:
        split(self.address, beyond_loopback=self.beyond_loopback)

    def _sends(self) -> None:
        if self.traces is not None:
            check_endpoint(self.traces)
