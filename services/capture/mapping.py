"""What the owner of a source says about its bodies: which field stands where, and what to assume.

A mapping is data: a fact's field and where to find it. A text is a key of the answers as written, else a dotted path
into the body; `{"cel": …}` is an expression over `body`, `query` and `headers`. Fields are those of a lead, `name`
(split into first and last), `occurred_at`, `idempotency_key`, `event`, and below `touch.`, `consent.` and `attributes.`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.capture.adapters.facts import Fact, Reading
from services.capture.adapters.request import HookRequest
from shared.errors import FieldError


@dataclass(frozen=True, slots=True)
class MappingSettings:
    """A source's mapping, ready for use, and its defaults: where a phone number without a country code is from, which
    channel its touches have, and of which type they are."""

    phone_country: str | None = None
    channel: str | None = None
    touch_type: str | None = None
    currency: str | None = None

    @classmethod
    def of(cls, mapping: Mapping[str, Any], defaults: Mapping[str, Any]) -> "MappingSettings":
        """The settings of a source as saved; cached, since every delivery asks. Both must be without faults."""
        raise NotImplementedError


PLAIN = MappingSettings()


def validate_mapping(mapping: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[FieldError]:
    """The faults of a source's mapping and defaults, with pointers from `/mapping` and `/defaults`; empty if none."""
    raise NotImplementedError


def overlay(reading: Reading, request: HookRequest, settings: MappingSettings) -> list[Fact]:
    """The facts with the mapped fields in place of the adapter's own; one about nobody is ignored."""
    raise NotImplementedError
