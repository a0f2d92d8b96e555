"""Accounts as callers see them: what the tests of accounts tell stories with."""

from typing import Any

from shared.events import AccountChanged, AccountPersonal
from shared.ids import LeadId
from shared.testing import eventually
from tests.service.capture_world import Capture


async def account(capture: Capture, **fields: Any) -> dict[str, Any]:
    response = await capture.post("accounts", fields)
    assert response.status_code in (200, 201), response.text
    return dict(response.json())


async def patch(capture: Capture, account_id: str, **fields: Any) -> Any:
    return await capture.harness.client.patch(f"/v1/accounts/{account_id}", json=fields)


async def lead_of(capture: Capture, lead_id: str) -> dict[str, Any]:
    return dict((await capture.get(f"leads/{lead_id}")).json())


async def account_of(capture: Capture, lead_id: str) -> tuple[str | None, str | None]:
    shown = (await lead_of(capture, lead_id))["account"]
    return shown["account_id"], shown["matched_by"]


async def rematched(capture: Capture) -> None:
    """Until nothing waits to be matched again."""

    async def nothing_waits() -> bool:
        await capture.harness.run_timers()
        return await capture.rows("SELECT 1 FROM rematches") == []

    await eventually(nothing_waits)


async def told_accounts(capture: Capture) -> list[tuple[str, AccountPersonal]]:
    events = await capture.harness.told(AccountChanged)
    async with capture.harness.runtime.database.reading() as connection:
        blocks = [(LeadId(event.account_id), event.personal) for event in events]
        opened = await capture.harness.runtime.keys.open_many(connection, blocks)
    return [
        (event.account_id, AccountPersonal.model_validate_json(block or b"{}"))
        for event, block in zip(events, opened, strict=True)
    ]
