"""Journeys, conversions and credits written out: whole, exact, resumable, and without what was erased."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from services.attribution.exports import handlers, queries
from services.attribution.exports.domain import COLUMNS
from services.attribution.exports.handlers import Streams
from services.attribution.exports.queries import Wanted
from shared.errors import Unavailable
from shared.settings import Settings
from shared.testing import Harness, eventually, harness
from tests.service.attribution_facts import Teller
from tests.service.exporting import a_worker, all_rows, asked, end_who_waits, filled, part, read, shown, swap, written
from throughline.services import service_code

KINDS = ("journeys", "conversions", "credits")
FORMATS = ("ndjson", "parquet")
ONE_PATH = (
    "SELECT 'x' AS conversion_id WHERE $1::timestamptz IS NULL AND $2::timestamptz IS NULL AND $3 = '' AND $4 > 0"
)


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("attribution"), settings) as service:
        yield service


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
async def test_export_in_parts_holds_the_same_rows_as_the_file_at_once(
    attribution: Harness, kind: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(attribution)
    for limit in ("TOUCHES_A_PAGE", "CONVERSIONS_A_PAGE", "CREDITED_A_PAGE"):
        monkeypatch.setattr(queries, limit, 5)
    monkeypatch.setattr(handlers, "PART_ROWS", 10)
    export = await asked(attribution, kind=kind, format=form)
    assert (export["state"], export["parts"], export["total"]) == ("waiting", 0, None)
    done = await written(attribution, export)
    assert done["parts"] > 1
    assert (done["snapshots"], done["done"], done["seconds_left"]) == (1, done["total"], 0)
    rows = await all_rows(attribution, export)
    assert rows == await read(attribution, kind, form) == await read(attribution, kind)
    assert {tuple(row) for row in rows} == {tuple(COLUMNS[kind])} if form == "parquet" else True  # type: ignore[index]  # one of the kinds
    listed = (await attribution.client.get(f"/v1/exports/{export['export_id']}/parts", params={"limit": 200})).json()
    assert [one["number"] for one in listed["items"]] == list(range(1, done["parts"] + 1))
    assert sum(one["rows"] for one in listed["items"]) == len(rows)
    assert sum(one["size"] for one in listed["items"]) == done["bytes"]


async def test_columns_are_the_ones_that_are_documented(attribution: Harness) -> None:
    await filled(attribution)
    for kind, columns in COLUMNS.items():
        assert all(set(row) == set(columns) for row in await read(attribution, kind))


async def test_journeys_hold_every_touch_once_with_whose_it_is(attribution: Harness) -> None:
    teller = Teller()
    await attribution.deliver(
        teller.touch("browser", 5, touch_id="a"),
        teller.touch("nora", 4, touch_id="b", channel=None, source="google", medium="cpc"),
        teller.touch("nora", 3, touch_id="b", channel=None, source="google", medium="cpc"),
        teller.linked("browser", "nora", 6),
        teller.merged("nora", "sue"),
    )
    rows = {row["touch_id"]: row for row in await read(attribution, "journeys")}
    assert {(name, row["lead_id"]) for name, row in rows.items()} == {
        ("a", teller.lead("sue")),
        ("b", teller.lead("sue")),
    }
    assert rows["a"]["told_lead_id"] == teller.lead("browser")
    assert (rows["b"]["channel"], rows["b"]["channel_rule"]) == ("Paid Search", "paid_search:tags")


async def test_credits_sum_to_what_the_conversions_are_worth_by_every_model(attribution: Harness) -> None:
    await filled(attribution)
    worth = {row["conversion_id"]: row["value_minor"] for row in await read(attribution, "conversions")}
    units: dict[tuple[str, str], int] = {}
    minor: dict[tuple[str, str], int] = {}
    for row in await read(attribution, "credits"):
        key = row["conversion_id"], row["model"]
        units[key] = units.get(key, 0) + row["units"]
        minor[key] = minor.get(key, 0) + row["value_minor"]
    models = {model for _, model in units}
    assert {"linear", "last_touch", "time_decay"} <= models
    whole = {key for key in units if key[1] != "participation"}
    assert all(units[key] == 10**10 and minor[key] == worth[key[0]] for key in whole)
    assert {(conversion, "linear") for conversion in worth} <= whole
    only = await read(attribution, "credits", model="linear")
    assert {row["model"] for row in only} == {"linear"}
    assert [row for row in await read(attribution, "credits") if row["model"] == "linear"] == only


async def test_export_of_a_time_has_what_occurred_in_it(attribution: Harness) -> None:
    teller = Teller()
    await attribution.deliver(*(teller.touch("nora", days, touch_id=str(days)) for days in range(1, 6)))
    rows = await read(attribution, "journeys", **{"from": "2026-11-16", "to": "2026-11-18T12:00:00Z"})
    assert [row["touch_id"] for row in rows] == ["4", "3"]
    export = await asked(attribution, kind="journeys", format="ndjson", **{"from": "2026-11-16", "to": "2026-11-18"})
    await written(attribution, export)
    assert [row["touch_id"] for row in await all_rows(attribution, export)] == ["4", "3"]


@pytest.mark.parametrize("form", FORMATS)
async def test_export_of_nothing_is_an_empty_file(attribution: Harness, form: str) -> None:
    assert await read(attribution, "credits", form) == []
    export = await asked(attribution, kind="journeys", format=form)
    assert (await written(attribution, export))["parts"] == 1
    assert await all_rows(attribution, export) == []


async def test_parts_show_one_state_however_much_arrives_meanwhile(
    attribution: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "TOUCHES_A_PAGE", 3)
    monkeypatch.setattr(handlers, "PART_ROWS", 3)
    await filled(attribution, range(500, 502))
    before = await read(attribution, "journeys")
    export = await asked(attribution, kind="journeys", format="ndjson")
    async with a_worker(attribution) as worker:
        await worker.step()
        await filled(attribution, range(502, 504))
        done = await written(attribution, export, worker)
    assert done["snapshots"] == 1
    assert await all_rows(attribution, export) == before


async def test_writing_goes_on_after_the_last_part_when_its_process_is_gone(
    attribution: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "TOUCHES_A_PAGE", 3)
    monkeypatch.setattr(handlers, "PART_ROWS", 6)
    await filled(attribution)
    expected = await read(attribution, "journeys")
    export = await asked(attribution, kind="journeys", format="parquet")
    async with a_worker(attribution) as first:
        await first.step()
        tag = (await part(attribution, export, 1)).headers["etag"]
        done = await written(attribution, export)  # by another
        assert done["snapshots"] == 2
        await first.step()
    assert await all_rows(attribution, export) == expected
    assert (await part(attribution, export, 1)).headers["etag"] == tag


async def test_two_workers_at_once_write_every_row_once(attribution: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "TOUCHES_A_PAGE", 4)
    monkeypatch.setattr(handlers, "PART_ROWS", 4)
    monkeypatch.setattr(handlers, "MOST_FAILURES", 100)
    await filled(attribution)
    expected = await read(attribution, "journeys")
    export = await asked(attribution, kind="journeys", format="ndjson")
    await asyncio.gather(written(attribution, export), written(attribution, export))
    assert await all_rows(attribution, export) == expected


async def test_export_that_fails_again_and_again_is_given_up_and_the_next_is_written(
    attribution: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = await asked(attribution, kind="credits", format="ndjson")
    good = await asked(attribution, kind="journeys", format="ndjson")
    monkeypatch.setattr(queries, "CREDITS", "SELECT 1 / 0, $1::text[], $2::integer[]")
    monkeypatch.setattr(queries, "PATHS", ONE_PATH)
    async with a_worker(attribution) as worker:
        for _ in range(handlers.MOST_FAILURES):
            with pytest.raises(Exception, match="division by zero"):
                await worker.step()
        await worker.step()
        assert (await shown(attribution, bad))["state"] == "failed"
        assert (await written(attribution, good, worker))["state"] == "done"


async def test_part_with_pages_of_an_erased_person_is_gone(attribution: Harness) -> None:
    teller = Teller()
    await attribution.deliver(teller.touch("nora", 3, page="https://acme.com/private"), teller.touch("otto", 2))
    export = await asked(attribution, kind="journeys", format="ndjson")
    await written(attribution, export)
    assert b"private" in gzip.decompress((await part(attribution, export, 1)).content)
    await attribution.deliver(teller.erased("nora"))
    answer = await part(attribution, export, 1)
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (410, "export-part-erased")
    async with attribution.runtime.database.reading() as connection:
        assert await connection.fetchval("SELECT count(*) FROM export_parts WHERE content IS NOT NULL") == 0
    again = await asked(attribution, kind="journeys", format="ndjson")
    await written(attribution, again)
    assert {row["page"] for row in await all_rows(attribution, again)} == {None}


async def test_part_that_was_read_before_an_erasure_is_not_stored_after_it(
    attribution: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "TOUCHES_A_PAGE", 1)
    monkeypatch.setattr(handlers, "PART_ROWS", 1)
    teller = Teller()
    names = [f"lead{number}" for number in range(5)]
    await attribution.deliver(*(teller.touch(name, 3, page="https://acme.com/private") for name in names))
    export = await asked(attribution, kind="journeys", format="ndjson")
    async with a_worker(attribution) as worker:
        await worker.step()
        await attribution.deliver(*(teller.erased(name) for name in names))
        done = await written(attribution, export, worker)
    assert done["snapshots"] == 2
    assert (await part(attribution, export, 1)).status_code == 410
    async with attribution.runtime.database.reading() as connection:
        contents = await connection.fetch("SELECT content FROM export_parts WHERE content IS NOT NULL")
    assert len(contents) == 4
    assert all(b"private" not in gzip.decompress(row["content"]) for row in contents)


@pytest.mark.parametrize("noticed", [True, False])
async def test_projection_that_is_swapped_in_meanwhile_costs_no_row(
    attribution: Harness, monkeypatch: pytest.MonkeyPatch, noticed: bool
) -> None:
    """A session notices the swap when it locks a table it has not locked yet, or sooner."""
    monkeypatch.setattr(queries, "TOUCHES_A_PAGE", 3)
    monkeypatch.setattr(handlers, "PART_ROWS", 6)
    await filled(attribution)
    expected = await read(attribution, "journeys")
    export = await asked(attribution, kind="journeys", format="ndjson")
    async with a_worker(attribution) as worker:
        await worker.step()
        async with attribution.runtime.database.reading() as connection:
            await swap(connection)
        if noticed:
            assert worker._snapshot is not None
            await worker._snapshot.connection.execute("SELECT FROM costs")
        assert (await written(attribution, export, worker))["snapshots"] in ((2,) if noticed else (1, 2))
    assert await all_rows(attribution, export) == expected


async def test_database_that_goes_away_before_the_first_row_is_come_again(attribution: Harness) -> None:
    async with attribution.consumer_runtime.database.transaction() as tx:
        await tx.connection.execute("LOCK TABLE touches")
        reading = asyncio.create_task(attribution.client.get("/v1/exports/journeys"))
        await eventually(lambda: end_who_waits(attribution.runtime.database))
        assert (await reading).status_code == 503


async def test_part_is_told_by_its_tag_and_not_sent_twice(attribution: Harness) -> None:
    await filled(attribution)
    export = await asked(attribution, kind="conversions", format="parquet")
    assert (await part(attribution, export, 1)).status_code == 404
    await written(attribution, export)
    answer = await part(attribution, export, 1)
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    assert answer.headers["content-disposition"] == 'attachment; filename="conversions-00001.parquet"'
    again = await part(attribution, export, 1, **{"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert (await part(attribution, export, 2)).status_code == 404


async def test_export_is_listed_dropped_and_asked_for_once_by_key(attribution: Harness) -> None:
    body, key = {"kind": "credits", "format": "ndjson", "model": "linear"}, {"idempotency-key": "k1"}
    first = (await attribution.client.post("/v1/exports", json=body, headers=key)).json()
    assert (await attribution.client.post("/v1/exports", json=body, headers=key)).json() == first
    await asked(attribution, kind="journeys")
    listed = (await attribution.client.get("/v1/exports", params={"limit": 1})).json()
    assert [one["kind"] for one in listed["items"]] == ["journeys"]
    rest = (await attribution.client.get("/v1/exports", params={"cursor": listed["next_cursor"]})).json()
    assert [one["export_id"] for one in rest["items"]] == [first["export_id"]]
    assert (await attribution.client.delete(f"/v1/exports/{first['export_id']}")).status_code == 204
    assert (await attribution.client.delete(f"/v1/exports/{first['export_id']}")).status_code == 404
    assert (await attribution.client.get(f"/v1/exports/{first['export_id']}")).status_code == 404


async def test_exports_are_removed_a_week_after_they_were_written(attribution: Harness) -> None:
    export = await asked(attribution, kind="journeys")
    await written(attribution, export)
    async with attribution.runtime.database.reading() as connection:
        await connection.execute("UPDATE exports SET finished_at = finished_at - interval '8 days'")
    async with a_worker(attribution) as worker:
        await worker.step()
    assert (await attribution.client.get(f"/v1/exports/{export['export_id']}")).status_code == 404
    async with attribution.runtime.database.reading() as connection:
        assert await connection.fetchval("SELECT count(*) FROM export_parts") == 0


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/kind"),
        ({"kind": "leads"}, "/kind"),
        ({"kind": "journeys", "format": "csv"}, "/format"),
        ({"kind": "credits", "model": "nothing"}, "/model"),
        ({"kind": "journeys", "model": "linear"}, ""),
        ({"kind": "journeys", "from": "2026-11-02", "to": "2026-11-02"}, ""),
        ({"kind": "journeys", "from": "2026-11-02T00:00:00"}, "/from"),
        ({"kind": "journeys", "from": "yesterday"}, "/from"),
        ({"kind": "journeys", "since": "2026-11-02"}, "/since"),
    ],
)
async def test_what_cannot_be_exported_is_refused_at_its_place(
    attribution: Harness, body: dict[str, Any], pointer: str
) -> None:
    answer = await attribution.client.post("/v1/exports", json=body)
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("exports/leads", 422),
        ("exports/journeys?format=csv", 422),
        ("exports/credits?model=nothing", 422),
        ("exports/journeys?from=2026-11-02&to=2026-11-01", 422),
        ("exports/journeys?from=x", 422),
        ("exports/00000000-0000-4000-8000-000000000000", 404),
        ("exports/00000000-0000-4000-8000-000000000000/parts/1", 404),
        ("exports/00000000-0000-4000-8000-000000000000/parts/0", 422),
        ("exports/00000000-0000-4000-8000-000000000000/parts", 404),
    ],
)
async def test_what_is_not_there_is_said_so(attribution: Harness, path: str, status: int) -> None:
    assert (await attribution.client.get(f"/v1/{path}")).status_code == status


async def test_more_exports_than_can_be_written_are_refused(
    attribution: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "MOST_WAITING", 1)
    await asked(attribution, kind="journeys")
    answer = await attribution.client.post("/v1/exports", json={"kind": "journeys"})
    assert (answer.status_code, answer.json()["type"].rpartition(":")[2]) == (409, "too-many-exports")
    streams = Streams(attribution.runtime)
    wanted = Wanted("journeys", None, None, None)
    open_ones = [streams.read(wanted, "ndjson") for _ in range(handlers.AT_ONCE)]
    for one in open_ones:
        await anext(one)
    with pytest.raises(Unavailable):
        await anext(streams.read(wanted, "ndjson"))
    for one in open_ones:
        await one.aclose()
    last = streams.read(wanted, "ndjson")
    await anext(last)
    await last.aclose()
