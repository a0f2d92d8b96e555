"""What is written about a deal with a person, sealed with the person's key: in its row and in the fact."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from services.routing.deals.domain import Deal
from services.routing.deals.inputs import DealInput
from services.routing.deals.queries import COLUMNS, deal_of
from shared.db import Connection
from shared.personal import PersonKeys
from shared.secrets import Secrets
from shared.service import Runtime

AT_ONCE = 200
WRITTEN = ("name", "reason", "notes", "remarks")
IN_CLEAR = f"""
SELECT {COLUMNS}, opened_with FROM deals JOIN person_keys USING (lead_id) WHERE name <> '' AND wrapped_key IS NOT NULL
ORDER BY deal_id LIMIT $1 FOR UPDATE OF deals SKIP LOCKED
"""
SEAL = """
UPDATE deals SET name = '', reason = NULL, notes = '{}', remarks = '{}', sealed = $2, opened_with = $3
WHERE deal_id = $1
"""


async def sealed(connection: Connection, keys: PersonKeys, deal: Deal) -> Deal:
    """A deal as it is stored and told, without its texts. Under an id that has no key nobody is known: they stay."""
    text = orjson.dumps({name: getattr(deal, name) for name in WRITTEN})
    blocks = await keys.seal_known(connection, {deal.lead_id: text})
    if not blocks:
        return deal
    return replace(deal, name="", reason=None, notes={}, remarks={}, sealed=blocks[deal.lead_id])


async def opened(connection: Connection, keys: PersonKeys, deals: Sequence[Deal]) -> list[Deal]:
    """Deals with what is written about them; nothing of somebody whose key is gone."""
    texts = await keys.open_many(connection, [(deal.lead_id, deal.sealed) for deal in deals])
    return [
        replace(deal, **_texts(text), sealed=None) if text is not None else deal
        for deal, text in zip(deals, texts, strict=True)
    ]


def mark_of(told: DealInput, secrets: Secrets) -> dict[str, str]:
    """By what the same deal, told again, is recognised."""
    return _mark(told.as_json(), secrets)


def _mark(told: Mapping[str, Any], secrets: Secrets) -> dict[str, str]:
    written = orjson.dumps(told, option=orjson.OPT_SORT_KEYS)
    return {"hmac": hmac.digest(secrets.derive("deals"), written, "sha256").hex()}


def _texts(text: bytes) -> Mapping[str, Any]:
    told = orjson.loads(text)
    return {name: told[name] for name in WRITTEN if name in told}


async def seal_clear(runtime: Runtime) -> None:
    """Seal texts that stand in clear: of an earlier version, or told before the key had arrived here."""
    while True:
        async with runtime.database.transaction() as tx:
            rows = await tx.connection.fetch(IN_CLEAR, AT_ONCE)
            done = 0
            for row in rows:
                columns = dict(row)
                told = columns.pop("opened_with")
                deal = await sealed(tx.connection, runtime.keys, deal_of(columns))
                if deal.sealed is not None:
                    mark = told if told is None or "hmac" in told else _mark(told, runtime.secrets)
                    await tx.connection.execute(SEAL, deal.deal_id, deal.sealed, mark)
                    done += 1
        if done < AT_ONCE:
            return
