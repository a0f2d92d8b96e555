"""Which records of a CRM are ours. One whose first write was not answered may stand there, and is looked for again.

It stands under the address that it was first written with, though the person may have another by now.
"""

from dataclasses import dataclass

from services.routing.crm import queries
from services.routing.crm.domain import BY_ADDRESS, Record, RecordKind
from services.routing.webhooks.domain import CLAIM_FOR
from shared.db import agreed_now
from shared.ids import LeadId
from shared.service import Runtime


@dataclass(frozen=True, slots=True)
class Begun:
    """A lead whose first write was not answered: what it is found by, unless nobody can read that any more."""

    found_by: str | None
    under_way: bool


class Records:
    """The records that are known, by connection."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def known(self, endpoint_id: str, kind: RecordKind, our_id: str) -> str | None:
        """The CRM's id of a record."""
        async with self._runtime.database.reading() as connection:
            row = await queries.record(connection, endpoint_id, kind, our_id)
        return None if row is None else row["crm_id"]

    async def note(self, endpoint_id: str, kind: RecordKind, our_id: str, crm_id: str) -> None:
        """The CRM told the id of a record."""
        async with self._runtime.database.reading() as connection:
            at = await agreed_now(connection, self._runtime.clock)
            await queries.put_record(connection, endpoint_id, kind, our_id, crm_id, at)

    async def begin(self, endpoint_id: str, lead_id: LeadId, record: Record) -> str | None:
        """Note that a lead is written first; answers what it is found by, as an earlier try may have settled.

        None where its id is known since.
        """
        keys = self._runtime.keys
        async with self._runtime.database.reading() as connection:
            at = await agreed_now(connection, self._runtime.clock)
            whose = [lead_id] if record.id_field in BY_ADDRESS else []
            (sealed,) = await keys.seal_by_any(connection, [(whose, record.id_value.encode())])
            sealed_for, block = sealed or (None, None)
            row = await queries.begin_record(connection, endpoint_id, lead_id, sealed_for, block, at)
            if row is None or row["sealed"] is None:
                return None if row is None else record.id_value
            (opened,) = await keys.open_many(connection, [(row["sealed_for"], row["sealed"])])
        return record.id_value if opened is None else opened.decode()

    async def begun(self, endpoint_id: str, lead_id: LeadId, id_field: str) -> Begun | None:
        """A lead whose first write was not answered; None for one that is known, or was never written."""
        async with self._runtime.database.reading() as connection:
            row = await queries.record(connection, endpoint_id, "lead", lead_id)
            if row is None or row["crm_id"] is not None:
                return None
            under_way = await agreed_now(connection, self._runtime.clock) < row["written_at"] + CLAIM_FOR
            if id_field not in BY_ADDRESS:
                return Begun(lead_id, under_way)
            (opened,) = await self._runtime.keys.open_many(connection, [(row["sealed_for"], row["sealed"])])
        return Begun(None if opened is None else opened.decode(), under_way)

    async def not_there(self, endpoint_id: str, lead_id: str) -> None:
        """What was begun came to nothing: the CRM said that it has no such record, or that it does not take it."""
        async with self._runtime.database.reading() as connection:
            await queries.drop_begun(connection, endpoint_id, lead_id)
