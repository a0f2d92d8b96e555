"""The person behind a fact on its way to a CRM: a stage can overtake the profile that it rests on."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from services.routing.people.domain import Person
from services.routing.people.handlers import person
from shared.ids import LeadId
from shared.service import Runtime

WITHIN_S = 2.0
"""So long a profile is usually behind at most; then the fact is tried again later."""
LOOK_EVERY_S = 0.1


async def person_told(runtime: Runtime, data: Mapping[str, Any]) -> Person | None:
    """The person, once the profile that the fact rests on is here; None while it is not."""
    lead_id, revision = LeadId(data["lead_id"]), data.get("profile_revision") or 0
    until = time.monotonic() + WITHIN_S
    while True:
        async with runtime.database.reading() as connection:
            who = await person(connection, lead_id, keys=runtime.keys)
        if who.erased or who.person_id != lead_id or who.revision >= revision:
            return who
        if time.monotonic() >= until:
            return None
        await asyncio.sleep(LOOK_EVERY_S)
