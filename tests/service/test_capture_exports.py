"""Exports through the API on real PostgreSQL, and back through an import."""

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio

from services.capture.exports.handlers import Exports
from shared.errors import Unavailable
from shared.settings import Settings
from shared.testing import eventually, harness, make_settings
from tests.conftest import DatabaseServer
from tests.service.capture_world import ago
from tests.service.exporting import end_who_waits
from tests.service.importing_world import Importing, counts
from throughline.services import service_code

ANN, BEN = "ann@example.com", "ben@example.com"
OURS = ("created_at", "updated_at")
ODD = ['=HYPERLINK("http://x")', "+1", "-1", "@SUM(A1)", "'=already", "\ttab", 'quote " and , and\nline', "Jürgen 😀"]


@pytest_asyncio.fixture
async def capture(settings: Settings) -> AsyncIterator[Importing]:
    async with harness(service_code("capture"), settings) as made:
        yield Importing(made)


@pytest_asyncio.fixture
async def elsewhere(database_server: DatabaseServer, template_database: str) -> AsyncIterator[Importing]:
    """Another installation, with the same secret."""
    url = database_server.make("elsewhere", template_database)
    async with harness(service_code("capture"), make_settings(url)) as made:
        yield Importing(made)
    database_server.drop("elsewhere")


async def exported(capture: Importing, kind: str, form: str, **params: str) -> list[dict[str, Any]]:
    answer = await capture.get(f"exports/{kind}", format=form, **params)
    assert answer.status_code == 200, answer.text
    if form == "ndjson":
        return [orjson.loads(line) for line in answer.content.splitlines()]
    return list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"), newline="")))


async def fill(capture: Importing) -> None:
    """People with everything that is hard to write down."""
    for number, odd in enumerate(ODD):
        await capture.lead(
            email=f"p{number}@example.com",
            external_id=f"crm-{number}",
            company=odd,
            attributes={"text": odd, "number": 5, "list": [1, None, {"a": True}]},
            consent={"email": "granted", "sms": "denied"},
            occurred_at=ago(days=number + 1),
        )
    await capture.lead(phone="+4915112345678", first_name="Only a phone", employees=50, occurred_at=ago(hours=1))
    ann = await capture.lead(email=ANN, external_id="x", title="Buyer", occurred_at=ago(days=9))
    other = await capture.lead(external_id="y", company="Merged", occurred_at=ago(days=20))
    await capture.post(f"leads/{ann['lead_id']}:merge", {"with": other["lead_id"]})
    ben = await capture.lead(email=BEN, company="Forgotten")
    await capture.post(f"leads/{ben['lead_id']}:erase", {})


@pytest.mark.parametrize("form", ["csv", "ndjson"])
async def test_what_is_exported_and_imported_elsewhere_is_the_same(
    capture: Importing, elsewhere: Importing, form: str
) -> None:
    await fill(capture)
    there = await exported(capture, "leads", form)
    assert len(there) == len(ODD) + 2
    assert BEN not in str(there)
    file = (await capture.get("exports/leads", format=form)).content
    job = await elsewhere.send(file, form)
    assert (job["created"], job["failed"]) == (len(there), 0), await elsewhere.errors(job)
    back = await exported(elsewhere, "leads", form)
    for before, after in zip(there, back, strict=True):
        assert {name: after[name] for name in before if name not in OURS} == {
            name: value for name, value in before.items() if name not in OURS
        }
    assert counts(await elsewhere.send(file, form))[:2] == (0, 0)


@pytest.mark.parametrize("form", ["csv", "ndjson"])
async def test_importing_ones_own_export_changes_only_what_was_edited(capture: Importing, form: str) -> None:
    await fill(capture)
    file = (await capture.get("exports/leads", format=form)).content
    before = await exported(capture, "leads", form)
    job = await capture.send(file.replace(b"Buyer", b"Owner"), form)
    assert (job["created"], job["failed"]) == (0, 0), await capture.errors(job)
    after = await exported(capture, "leads", form)
    changed = [
        (old["email"], name)
        for old, new in zip(before, after, strict=True)
        for name in old
        if old[name] != new[name] and name not in OURS
    ]
    assert changed == [(ANN, "title")]


async def test_no_cell_of_an_export_is_a_formula(capture: Importing) -> None:
    await fill(capture)
    rows = await exported(capture, "leads", "csv")
    cells = [cell for row in rows for cell in row.values()]
    assert [cell for cell in cells if cell[:1] in tuple("=+-@\t\r")] == []
    assert "'+4915112345678" in cells


async def test_consent_and_deliveries_are_exported_too(capture: Importing) -> None:
    await capture.lead(email=ANN, consent={"email": "granted"})
    source = await capture.source()
    await capture.hook(source, {"email": BEN})
    await capture.map_deliveries()
    (entry,) = await exported(capture, "consent", "csv")
    assert (entry["channel"], entry["state"], entry["origin"]) == ("email", "granted", "api")
    (delivery,) = await exported(capture, "deliveries", "ndjson")
    assert (delivery["source_id"], delivery["state"], delivery["received"]) == (source["source_id"], "mapped", 1)


async def test_an_export_is_asked_for_and_then_read(capture: Importing) -> None:
    await capture.lead(email=ANN)
    asked = {"kind": "leads", "format": "csv", "filter": {"since": ago(days=-1)}}
    answer = await capture.post("exports", asked)
    assert answer.status_code == 201
    assert "/capture/v1/exports/leads?format=csv&since=" in answer.json()["url"]
    assert await exported(capture, "leads", "csv", since=ago(days=-1)) == []
    assert len(await exported(capture, "leads", "csv", since=ago(days=1))) == 1
    assert (await capture.post("exports", {"kind": "secrets"})).status_code == 422
    for kind, status in (("leads", 201), ("leads", 201), ("consent", 422)):
        assert (await capture.post("exports", {"kind": kind}, idempotency_key="once")).status_code == status
    assert (await capture.get("exports/secrets")).status_code == 422


async def test_an_export_is_of_one_moment_and_only_some_are_read_at_once(capture: Importing) -> None:
    for number in range(3):
        await capture.lead(email=f"p{number}@example.com")
    exports = Exports(capture.harness.runtime)
    streams = [exports.read("leads", "csv", None) for _ in range(3)]
    for stream in streams[:2]:
        await anext(stream)
    with pytest.raises(Unavailable):
        await anext(streams[2])
    await asyncio.gather(*(capture.lead(email=f"q{number}@example.com") for number in range(3)))
    pieces = [piece async for piece in streams[0]]
    assert b"q0@example.com" in b"".join(pieces)  # its snapshot begins with its first statement
    await streams[1].aclose()
    assert [piece async for piece in exports.read("leads", "ndjson", None)]


async def test_database_that_goes_away_before_the_first_row_is_come_again(capture: Importing) -> None:
    async with capture.harness.runtime.database.transaction() as tx:
        await tx.connection.execute("LOCK TABLE leads")
        reading = asyncio.create_task(capture.get("exports/leads", format="ndjson"))
        await eventually(lambda: end_who_waits(capture.harness.runtime.database))
        assert (await reading).status_code == 503
