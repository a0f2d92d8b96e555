"""The lane in: what is acknowledged is committed, one bad fact fails alone, and a cursor misses nothing."""

import asyncio
from datetime import UTC, datetime

import asyncpg
import pytest

from shared.db import API_LOG, CONSUMER_LOG
from shared.errors import Unavailable
from shared.events import PersonKeyCreated, TouchRecorded
from shared.personal import Draft, Encoded, PersonErased
from shared.service import WrongSecret, build_runtime, check_secret
from shared.settings import Settings
from shared.telemetry import new_trace, set_trace
from shared.testing import eventually
from tests.service.runtime_world import (
    beside,
    drafts,
    execute,
    fetch,
    lead_names,
    log_lock,
    logged,
    runtime_of,
    touch,
    value,
    waiting_for_lock,
)


async def test_an_acknowledgement_comes_after_the_commit_and_many_share_one(settings: Settings) -> None:
    async with runtime_of(settings, log=API_LOG) as runtime, beside(runtime.log.run()):
        async with log_lock(runtime.database):
            first = asyncio.create_task(runtime.log.append(drafts(touch(number=0))))
            await eventually(lambda: waiting_for_lock(runtime.database))
            rest = [asyncio.create_task(runtime.log.append(drafts(touch(number=n)))) for n in range(1, 40)]
            await eventually(lambda: runtime.log.load * settings.capture_queue_rows == pytest.approx(39))
            assert not any(task.done() for task in (first, *rest))
            assert await logged(runtime.database) == []
        await asyncio.gather(first, *rest)
        assert await logged(runtime.database) == [f"touch-ann-{n}" for n in range(40)]
        commits = await value(runtime.database, "SELECT count(DISTINCT xmin::text) FROM event_log")
        assert commits == 2


@pytest.mark.parametrize("broken", ["touch\x00", "touch\ud800"])
async def test_a_bad_submission_fails_alone_and_keeps_no_trace_of_others(settings: Settings, broken: str) -> None:
    async with runtime_of(settings, log=API_LOG) as runtime, beside(runtime.log.run()):
        async with log_lock(runtime.database):
            first = asyncio.create_task(runtime.log.append(drafts(touch(number=0))))
            await eventually(lambda: waiting_for_lock(runtime.database))
            trace = new_trace()
            set_trace(trace)
            good = asyncio.create_task(runtime.log.append(drafts(touch(number=1))))
            set_trace(None)
            bad = asyncio.create_task(runtime.log.append(drafts(touch(number=2, event_id=broken))))
            also_good = asyncio.create_task(runtime.log.append(drafts(touch(number=3))))
        await asyncio.gather(first, good, also_good)
        with pytest.raises((asyncpg.PostgresError, ValueError)):
            await bad
        assert await logged(runtime.database) == ["touch-ann-0", "touch-ann-1", "touch-ann-3"]
        rows = await fetch(runtime.database, "SELECT traceparent FROM event_log ORDER BY position")
        assert [row["traceparent"] for row in rows] == [None, trace, None]


async def test_the_relay_hurries_as_soon_as_somebody_waits_for_one_of_the_facts(settings: Settings) -> None:
    fact = touch()
    at = fact.occurred_at
    calm = Encoded(TouchRecorded, fact.event_id, fact.lead_id, at.isoformat(), at, fact.encode(), calm=True)
    async with runtime_of(settings, log=API_LOG) as runtime, beside(runtime.log.run()):
        bell = runtime.database.bell
        bell.is_heard = True
        await runtime.log.append([calm])
        await asyncio.wait_for(bell.rung.wait(), 60)
        assert not bell.hurried.is_set()
        await runtime.log.append([calm, *drafts(touch(type="form_submitted"))])
        await asyncio.wait_for(bell.hurried.wait(), 60)


async def test_what_stands_apart_goes_to_the_log_of_consumers(settings: Settings) -> None:
    async with runtime_of(settings, log=API_LOG) as runtime, beside(runtime.log.run()):
        bell = runtime.database.bell
        bell.is_heard = True
        await asyncio.gather(*(runtime.log.append(drafts(touch(number=n)), apart=n == 2) for n in range(1, 4)))
        assert await logged(runtime.database) == ["touch-ann-1", "touch-ann-3"]
        assert await logged(runtime.database, CONSUMER_LOG) == ["touch-ann-2"]
        bell.fall_silent([API_LOG])
        assert bell.rung.is_set()
        bell.fall_silent([CONSUMER_LOG])
        assert not bell.rung.is_set()


async def test_a_client_that_went_away_while_others_are_committed_singly_harms_nobody(settings: Settings) -> None:
    async with runtime_of(settings, log=API_LOG) as runtime, beside(runtime.log.run()):
        async with log_lock(runtime.database):
            first = asyncio.create_task(runtime.log.append(drafts(touch(number=0))))
            await eventually(lambda: waiting_for_lock(runtime.database))
            bad = asyncio.create_task(runtime.log.append(drafts(touch(event_id="\x00"))))
            gone = asyncio.create_task(runtime.log.append(drafts(touch(number=1))))
            good = asyncio.create_task(runtime.log.append(drafts(touch(number=2))))
            await eventually(lambda: runtime.log.load > 0)
            gone.cancel()
        await asyncio.gather(first, good)
        with pytest.raises(asyncpg.PostgresError):
            await bad
        await runtime.log.append(drafts(touch(number=3)))
        assert (await logged(runtime.database))[-1] == "touch-ann-3"


async def test_beyond_its_bound_the_queue_refuses_and_takes_again_when_there_is_room(settings: Settings) -> None:
    small = settings.model_copy(update={"capture_queue_rows": 10})
    async with runtime_of(small, log=API_LOG) as runtime, beside(runtime.log.run()):
        async with log_lock(runtime.database):
            tasks = [asyncio.create_task(runtime.log.append(drafts(touch())))]
            await eventually(lambda: waiting_for_lock(runtime.database))
            tasks.append(asyncio.create_task(runtime.log.append(drafts(*(touch() for _ in range(9))))))
            await eventually(lambda: runtime.log.load == pytest.approx(0.9))
            with pytest.raises(Unavailable):
                await runtime.log.append(drafts(touch(), touch()))
        await asyncio.gather(*tasks)
        await runtime.log.append(drafts(*(touch() for _ in range(10))))
        assert len(await logged(runtime.database)) == 20


async def test_stop_commits_what_was_taken_and_takes_no_more(settings: Settings) -> None:
    async with runtime_of(settings, log=API_LOG) as runtime:
        running = asyncio.create_task(runtime.log.run())
        async with log_lock(runtime.database):
            tasks = [asyncio.create_task(runtime.log.append(drafts(touch()))) for _ in range(5)]
            await eventually(lambda: waiting_for_lock(runtime.database))
            await runtime.log.stop()
            with pytest.raises(Unavailable):
                await runtime.log.append(drafts(touch()))
        await running
        await asyncio.gather(*tasks)
        assert len(await logged(runtime.database)) == 5


async def test_cancelled_in_the_middle_nobody_is_left_waiting(settings: Settings) -> None:
    async with runtime_of(settings, log=API_LOG) as runtime:
        running = asyncio.create_task(runtime.log.run())
        async with log_lock(runtime.database):
            first = asyncio.create_task(runtime.log.append(drafts(touch())))
            await eventually(lambda: waiting_for_lock(runtime.database))
            second = asyncio.create_task(runtime.log.append(drafts(touch(event_id="\x00"))))
            await eventually(lambda: runtime.log.load > 0)
            running.cancel()
            answers = await asyncio.gather(first, second, return_exceptions=True)
        assert all(isinstance(answer, Unavailable) for answer in answers)


async def test_a_terminated_backend_refuses_what_it_had_and_the_next_commit_works(settings: Settings) -> None:
    async with runtime_of(settings, log=API_LOG) as runtime, beside(runtime.log.run()):
        async with log_lock(runtime.database):
            task = asyncio.create_task(runtime.log.append(drafts(touch(number=1))))
            (pid,) = await eventually(lambda: waiting_for_lock(runtime.database))
            await execute(runtime.database, "SELECT pg_terminate_backend($1)", pid)
            with pytest.raises(Unavailable):
                await task
        await runtime.log.append(drafts(touch(number=2)))
        assert await logged(runtime.database) == ["touch-ann-2"]


async def test_position_order_is_commit_order_so_that_a_cursor_skips_nothing(settings: Settings) -> None:
    """Writers of both logs at once, one of them slow between its facts and its commit; a reader follows each log."""
    seen: dict[int, list[str]] = {API_LOG: [], CONSUMER_LOG: []}
    over = asyncio.Event()

    async def follow(which: int) -> None:
        cursor = 0
        async with runtime_of(settings) as reader:
            while True:
                last = over.is_set()
                rows = await fetch(
                    reader.database,
                    "SELECT position, event_id FROM event_log WHERE log = $1 AND position > $2 ORDER BY position",
                    which,
                    cursor,
                )
                seen[which].extend(row["event_id"] for row in rows)
                cursor = rows[-1]["position"] if rows else cursor
                if last and not rows:
                    return

    async with runtime_of(settings, log=API_LOG) as api, runtime_of(settings) as consumer, beside(api.log.run()):

        async def transactions(database: object, lead: str) -> None:
            for _ in range(30):
                async with (api if database is api else consumer).database.transaction() as tx:
                    tx.emit(touch(lead), touch(lead))
                    await tx.connection.execute("SELECT pg_sleep(0.001)")

        async def submissions(lead: str) -> None:
            for _ in range(60):
                await api.log.append(drafts(touch(lead)))

        followers = [asyncio.create_task(follow(which)) for which in seen]
        leads = lead_names(8)
        await asyncio.gather(
            *(submissions(lead) for lead in leads[:4]),
            *(transactions(api, lead) for lead in leads[4:6]),
            *(transactions(consumer, lead) for lead in leads[6:]),
        )
        over.set()
        await asyncio.gather(*followers)
        for which, ids in seen.items():
            assert ids == await logged(api.database, which)
        assert (len(seen[API_LOG]), len(seen[CONSUMER_LOG])) == (4 * 60 + 2 * 60, 2 * 60)


async def test_a_frozen_consumer_does_not_hold_up_a_request(settings: Settings) -> None:
    async with (
        runtime_of(settings, log=API_LOG) as runtime,
        beside(runtime.log.run()),
        log_lock(runtime.database, CONSUMER_LOG),
        asyncio.timeout(60),
    ):
        await runtime.log.append(drafts(touch(number=1)))
        async with runtime.database.transaction() as tx:
            tx.emit(touch(number=2))
        assert await logged(runtime.database) == ["touch-ann-1", "touch-ann-2"]


async def test_personal_parts_are_sealed_and_the_key_is_told_before_them(settings: Settings) -> None:
    async with runtime_of(settings, log=API_LOG) as runtime, beside(runtime.log.run()):
        await runtime.log.append([Draft(touch(number=1), b'{"url": "https://a.example/?q=Canary"}')])
        await runtime.log.append([Draft(touch(number=2), b"{}")])
        rows = await fetch(runtime.database, "SELECT type, value FROM event_log ORDER BY position")
        assert [row["type"] for row in rows] == [PersonKeyCreated.ce_type, *[TouchRecorded.ce_type] * 2]
        assert b"Canary" not in b"".join(row["value"] for row in rows)
        sealed = TouchRecorded.decode(rows[1]["value"])
        async with runtime.database.reading() as connection:
            opened = await runtime.keys.open_many(connection, [(sealed.lead_id, sealed.personal)])
        assert opened == [b'{"url": "https://a.example/?q=Canary"}']


async def test_an_erased_person_is_refused_alone(settings: Settings) -> None:
    async with runtime_of(settings, log=API_LOG) as runtime, beside(runtime.log.run()):
        async with runtime.database.transaction() as tx:
            await runtime.keys.destroy(tx, touch("gone").lead_id, datetime.now(UTC))
        answers = await asyncio.gather(
            runtime.log.append([Draft(touch("gone"), b"{}")]),
            runtime.log.append([Draft(touch("here", number=1), b"{}")]),
            return_exceptions=True,
        )
        assert isinstance(answers[0], PersonErased)
        assert answers[1] is None
        assert (await logged(runtime.database))[-1] == "touch-here-1"


async def test_a_start_with_another_secret_is_refused(settings: Settings) -> None:
    async with runtime_of(settings) as runtime, runtime.database.reading() as connection:
        await check_secret(connection, runtime.ids)
        await check_secret(connection, runtime.ids)
        other = build_runtime("capture", settings.model_copy(update={"secret": type(settings.secret)("ab" * 32)}))
        with pytest.raises(WrongSecret, match="THROUGHLINE_SECRET"):
            await check_secret(connection, other.ids)
        assert other.ids.of_email("ann@example.com") != runtime.ids.of_email("ann@example.com")
        assert await value(runtime.database, "SELECT value FROM installation") == runtime.ids.fingerprint()
