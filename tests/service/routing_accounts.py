"""Accounts as capture would tell them to routing."""

from typing import Any

import orjson

from shared.events import AccountChanged
from shared.ids import AccountId, EventId, LeadId, derived_id
from tests.service.routing_support import NOON, Routing

ACCOUNT_OWNER = {"id": "account", "when": "true", "strategy": "account_owner"}


def account_id(name: str) -> AccountId:
    """An id as capture makes them."""
    return AccountId(derived_id("test-account", name))


async def account(  # noqa: PLR0913  # what an account says
    routing: Routing,
    name: str,
    revision: int = 1,
    *,
    owner: str | None = None,
    parent: str | None = None,
    into: str | None = None,
    **fields: Any,
) -> AccountChanged:
    """An account, its personal part sealed with its key, which is here already."""
    own_id = account_id(name)
    keys = routing.service.consumer_runtime.keys
    personal = {"name": name, "domains": [f"{name}.com"], "owner_id": owner}
    async with routing.service.runtime.database.reading() as connection:
        ciphers, _ = await keys.ciphers(connection, [LeadId(own_id)], NOON)
    return AccountChanged(
        event_id=EventId(derived_id("account", name, str(revision))),
        lead_id=LeadId(own_id),
        occurred_at=NOON,
        received_at=NOON,
        revision=revision,
        account_id=own_id,
        parent_id=account_id(parent) if parent else None,
        merged_into=account_id(into) if into else None,
        personal=keys.seal(LeadId(own_id), ciphers[LeadId(own_id)], orjson.dumps(personal)).decode(),
        **fields,
    )
