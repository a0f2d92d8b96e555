"""What a busy door remembers of the database."""

import asyncio

from services.capture.lately import Lately


async def test_what_was_read_before_a_change_is_not_remembered_after_it() -> None:
    stored, reading, may_go_on = "old", asyncio.Event(), asyncio.Event()

    async def load(name: str) -> str:
        found = stored
        reading.set()
        await may_go_on.wait()
        return found

    known = Lately(load, fresh_s=1e9)
    looking = asyncio.create_task(known.get("secret"))
    await reading.wait()
    stored = "new"
    known.changed("secret")
    may_go_on.set()
    await looking
    assert await known.get("secret") == "new"
