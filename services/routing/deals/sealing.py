"""What is written about a deal with a person, sealed with the person's key: in its row and in the fact."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from services.routing.deals.domain import Deal
from services.routing.deals.inputs import DealInput
from shared.db import Connection
from shared.personal import PersonKeys
from shared.secrets import Secrets


async def sealed(connection: Connection, keys: PersonKeys, deal: Deal) -> Deal:
    """A deal as it is stored and told, without its texts. Under an id that has no key nobody is known: they stay."""
    text = orjson.dumps({"name": deal.name, "reason": deal.reason})
    blocks = await keys.seal_known(connection, {deal.lead_id: text})
    return replace(deal, name="", reason=None, sealed=blocks[deal.lead_id]) if blocks else deal


async def opened(connection: Connection, keys: PersonKeys, deals: Sequence[Deal]) -> list[Deal]:
    """Deals with what is written about them; nothing of somebody whose key is gone."""
    texts = await keys.open_many(connection, [(deal.lead_id, deal.sealed) for deal in deals])
    return [
        replace(deal, **_texts(text), sealed=None) if text is not None else deal
        for deal, text in zip(deals, texts, strict=True)
    ]


def mark_of(told: DealInput, secrets: Secrets) -> dict[str, str]:
    """By what the same deal, told again, is recognised."""
    written = orjson.dumps(told.as_json(), option=orjson.OPT_SORT_KEYS)
    return {"hmac": hmac.digest(secrets.derive("deals"), written, "sha256").hex()}


def _texts(text: bytes) -> Mapping[str, Any]:
    told = orjson.loads(text)
    return {"name": told["name"], "reason": told["reason"]}
