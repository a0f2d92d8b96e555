"""What a kind of webhook source is to capture: requests verified, named and turned into facts, without any I/O.

The endpoint calls, in this order, `certificates`, `handshake` (and of one that is answered, `confirmation`), `verify`,
`stored`, and then with the stored request `signed_once`, `delivery_id` and `answer`. The worker, later, asks for the
`lookups` and calls `facts`. Nothing but what is named here is raised, whatever comes in.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from secrets import token_urlsafe
from typing import ClassVar, Protocol

from services.capture.adapters.errors import BadSignature, Unmappable
from services.capture.adapters.facts import (
    ActionFact,
    BookingFact,
    ConversionFact,
    CrmFact,
    ErasureFact,
    Fact,
    Ignored,
    LeadFact,
    MessageFact,
    Person,
    Reading,
    RefundFact,
    Touch,
    TouchFact,
)
from services.capture.adapters.request import SHORTEST_SECRET, Answer, Headers, HookRequest, strip_secrets
from services.capture.mapping import PLAIN, MappingSettings, overlay

__all__ = [
    "PLAIN",
    "ActionFact",
    "Adapter",
    "Answer",
    "BadSignature",
    "BookingFact",
    "ConversionFact",
    "CrmFact",
    "ErasureFact",
    "Fact",
    "Headers",
    "HookRequest",
    "Ignored",
    "LeadFact",
    "MappingSettings",
    "MessageFact",
    "Person",
    "Reading",
    "RefundFact",
    "Touch",
    "TouchFact",
    "Unmappable",
]


class Adapter(Protocol):
    """One kind of source. `verify`, `delivery_id` and `read` are its own; the rest fits most as it is."""

    kind: ClassVar[str]
    api: ClassVar[str | None] = None
    """The address below which `lookups` are asked for."""
    api_hosts: ClassVar[frozenset[str]] = frozenset()
    """The other hosts of the provider, of which the default `api_base` of a source may name one."""
    secret_from: ClassVar[str] = "from the settings of the webhook at its provider"
    """Where the owner of a source finds the secret, for kinds whose provider makes it."""

    def verify(
        self, request: HookRequest, secrets: Sequence[str], now: datetime, settings: MappingSettings = PLAIN
    ) -> None:
        """Raise BadSignature unless the request proves one of the live secrets, and is of now where it tells a time."""
        ...

    def delivery_id(self, request: HookRequest, settings: MappingSettings = PLAIN) -> str:
        """The name of this delivery, the same for every attempt at it, prefixed with the kind. Never raises."""
        ...

    def signed_once(self, request: HookRequest) -> Sequence[str]:
        """The tokens that are good for one body alone, where a signature does not cover the body. Never raises."""
        return ()

    def read(self, request: HookRequest, settings: MappingSettings) -> Reading:
        """The facts as the source's own shape tells them; Unmappable if it is not that shape."""
        ...

    def facts(self, request: HookRequest, settings: MappingSettings = PLAIN) -> list[Fact]:
        """The facts of a stored request, under the mapping of the source's owner; Unmappable if there are none."""
        return overlay(self.read(request, settings), request, settings)

    def certificates(self, request: HookRequest) -> Sequence[str]:
        """The addresses of the certificates that `verify` needs in `found`: the provider's own, over HTTPS."""
        return ()

    def lookups(self, request: HookRequest) -> Sequence[str]:
        """The paths below `api`, queries included, whose answers `read` needs in `found`. Never raises."""
        return ()

    def authorization(self, credential: str) -> Mapping[str, str]:
        """The headers that prove who asks."""
        return {"authorization": f"Bearer {credential}"}

    def handshake(
        self, request: HookRequest, secrets: Sequence[str], settings: MappingSettings = PLAIN
    ) -> Answer | None:
        """The answer to a request that only asks whether we are there; None for a delivery. Stores nothing.

        Handshakes come before `verify`, since each proves itself in a way of its own, or not at all.
        """
        return None

    def confirmation(self, request: HookRequest) -> str | None:
        """The address that a handshake asks us to get before the source sends anything: the provider's own, HTTPS."""
        return None

    def answer(self, request: HookRequest) -> Answer:
        """What the source wants back for a delivery that is stored."""
        return Answer()

    def stored(self, request: HookRequest, secrets: Sequence[str]) -> HookRequest:
        """The request as it may be kept and logged: whatever opens the door is blanked."""
        return strip_secrets(request, secrets)

    def new_secret(self) -> str:
        """A secret for a source whose owner gave none."""
        return token_urlsafe(32)

    def secret_fault(self, secret: str) -> str | None:
        """Why this text cannot be a secret of this kind, as a sentence; None if it can."""
        return None if len(secret) >= SHORTEST_SECRET else f"a secret has at least {SHORTEST_SECRET} characters"
