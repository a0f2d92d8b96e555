"""Imports through the API and the worker on real PostgreSQL: a row does what the API's call does, once."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio

from services.capture.imports.carrying import BEHIND_PAUSE, FURTHEST_BEHIND, Imports
from shared.db import COPIED_FROM
from shared.events import ConversionRecorded, CostRecorded, LeadCaptured, TouchRecorded
from shared.settings import Settings
from shared.testing import harness
from tests.service.capture_world import ago
from tests.service.importing_world import Importing, counts, people, table
from throughline.services import service_code

ANN, BEN = "ann@example.com", "ben@example.com"
NO_TIME = "touch.occurred_at: lies outside of the years 1900 to 2999"
FAR_AHEAD = """
INSERT INTO event_log (log, position, event_id, topic, key, type, subject, occurred_at)
VALUES (1, $1, 'e', 'leads', 'k', 't', 'k', '') RETURNING position
"""


@pytest_asyncio.fixture
async def capture(settings: Settings) -> AsyncIterator[Importing]:
    async with harness(service_code("capture"), settings) as made:
        yield Importing(made)


async def test_a_file_as_the_body_is_imported_at_once(capture: Importing) -> None:
    job = await capture.send(
        table(("E-Mail", "Vorname", "Firma", "Lead Score"), (ANN, "Ann", "Acme", "5"), (BEN, "Ben", "", ""))
    )
    assert (job["state"], counts(job), job["rows_done"], job["rows_total"]) == ("done", (2, 0, 0, 0), 2, 2)
    ann = await capture.by_email(ANN)
    assert (ann["first_name"], ann["company"], ann["attributes"]) == ("Ann", "Acme", {"lead_score": "5"})
    assert (await capture.by_email(BEN))["company"] is None
    assert job["started_at"] is not None
    assert job["finished_at"] is not None
    assert await capture.rows("SELECT 1 FROM import_pieces") == []


async def test_an_import_waits_for_its_file_shows_it_and_starts(capture: Importing) -> None:
    job = await capture.made(name="spring fair", kind="leads", format="csv")
    assert job["file_url"].endswith(f"/capture/v1/imports/{job['import_id']}/file")
    assert (await capture.post(f"imports/{job['import_id']}:start", {})).status_code == 409
    file = table(("Mail", "Who", "Handy"), (ANN, "Ann Lee", "0151 12345678"), ("no address", "X", ""), delimiter=";")
    assert (await capture.put(job, file)).json()["state"] == "ready"
    mapping = {"email": "Mail", "name": "Who", "phone": "Handy"}
    path = f"/v1/imports/{job['import_id']}"
    patched = await capture.harness.client.patch(path, json={"mapping": mapping, "defaults": {"phone_country": "DE"}})
    assert patched.status_code == 200, patched.text
    preview = (await capture.get(f"imports/{job['import_id']}:preview")).json()
    assert (preview["columns"], preview["delimiter"], preview["mapping"]) == (["Mail", "Who", "Handy"], ";", mapping)
    first, second = preview["rows"]
    assert first["body"] == {"email": ANN, "first_name": "Ann", "last_name": "Lee", "phone": "+4915112345678"}
    assert (first["line"], first["outcome"], second["outcome"]) == (2, "created", "failed")
    assert second["reason"].startswith("email: ")
    assert await capture.rows("SELECT 1 FROM leads") == []
    started = await capture.post(f"imports/{job['import_id']}:start", {})
    assert started.json()["state"] == "queued"
    await capture.work()
    done = await capture.job(job["import_id"])
    assert (done["state"], counts(done)) == ("done", (1, 0, 0, 1))
    assert (await capture.by_email(ANN))["last_name"] == "Lee"
    (bad,) = await capture.errors(done)
    assert (bad["line"], bad["Mail"], bad["Who"]) == ("3", "no address", "X")
    assert bad["reason"].startswith("email: ")
    listed = (await capture.get("imports", limit="1")).json()
    assert [each["import_id"] for each in listed["items"]] == [job["import_id"]]


async def test_the_same_file_twice_changes_nothing(capture: Importing) -> None:
    file = table(
        ("email", "company", "email_consent", "occurred_at", "touch.type"),
        (ANN, "Acme", "yes", "", ""),
        (BEN, "Bolt", "", ago(days=3), "demo_requested"),
        (ANN, "Coil", "", "", ""),
        (BEN, "Drum", "", ago(days=3), ""),
    )
    first = await capture.send(file)
    assert counts(first) == (2, 2, 0, 0)
    assert (await capture.by_email(ANN))["company"] == "Coil"
    assert (await capture.by_email(BEN))["company"] == "Drum"
    log = await capture.log()
    second = await capture.send(file)
    assert (second["state"], counts(second)) == ("done", (0, 0, 4, 0))
    assert await capture.log() == log


async def test_the_same_file_twice_at_once_is_told_once(capture: Importing) -> None:
    file = table(("email", "type"), (ANN, "page_view"), (BEN, "page_view"))
    for _ in range(2):
        await capture.post_file(file, kind="touches")
    await capture.work()
    jobs = (await capture.get("imports")).json()["items"]
    assert [counts(job) for job in jobs] == [(0, 0, 2, 0), (2, 0, 0, 0)]
    assert len(await capture.harness.told(TouchRecorded)) == 2


async def test_a_time_that_cannot_be_stored_makes_one_bad_row(capture: Importing) -> None:
    file = table(
        ("email", "touch.type", "touch.occurred_at"),
        (ANN, "page_view", "0001-01-01T00:00:00+01:00"),
        (BEN, "page_view", ago(days=1)),
    )
    job = await capture.made()
    await capture.put(job, file)
    assert [row["outcome"] for row in (await capture.get(f"imports/{job['import_id']}:preview")).json()["rows"]] == [
        "failed",
        "created",
    ]
    done = await capture.send(file)
    assert counts(done) == (1, 0, 0, 1)
    assert (await capture.errors(done))[0]["reason"] == NO_TIME


async def test_a_time_that_cannot_be_stored_spoils_no_batch_of_many(capture: Importing) -> None:
    many = [(f"p{n}@example.com", "page_view", ago(days=1)) for n in range(2 * COPIED_FROM)]
    many.insert(70, (ANN, "page_view", "0001-01-01T00:00:00+01:00"))
    done = await capture.send(table(("email", "touch.type", "touch.occurred_at"), *many))
    assert counts(done) == (2 * COPIED_FROM, 0, 0, 1)
    assert [(row["line"], row["reason"]) for row in await capture.errors(done)] == [("72", NO_TIME)]


async def test_an_old_file_does_not_win_over_what_was_said_since(capture: Importing) -> None:
    file = table(("email", "company"), (ANN, "Acme"))
    await capture.send(file)
    await capture.lead(email=ANN, company="Bolt")
    assert counts(await capture.send(file)) == (0, 0, 1, 0)
    assert (await capture.by_email(ANN))["company"] == "Bolt"
    assert counts(await capture.send(table(("email", "company"), (ANN, "Coil")))) == (0, 1, 0, 0)
    assert (await capture.by_email(ANN))["company"] == "Coil"


async def test_a_dry_run_counts_and_changes_nothing(capture: Importing) -> None:
    await capture.lead(email="p1@example.com", first_name="P1", company="Company 1")
    log = await capture.log()
    rows = [*people(1_200), ("p5@example.com", "P5", "Company 5"), ("nobody", "", "")]
    dry = await capture.send(table(*rows), dry_run="true")
    assert (dry["dry_run"], counts(dry)) == (True, (1_199, 1, 1, 1))
    assert await capture.log() == log
    assert len(await capture.rows("SELECT 1 FROM leads")) == 1
    assert len(await capture.errors(dry)) == 1
    assert await capture.rows("SELECT 1 FROM import_dry_leads") == []
    assert counts(await capture.send(table(*rows))) == (1_199, 0, 2, 1)


async def test_a_dry_run_knows_people_of_earlier_batches_by_any_of_their_identifiers(capture: Importing) -> None:
    known = ("known@example.com", "", "")
    await capture.lead(email=known[0])
    first = [(ANN, "+4915112345678", ""), (known[0], "+4915112345679", ""), (BEN, "", "b-1"), ("", "", "c-1")]
    others = [(f"p{number}@example.com", "", "") for number in range(600)]
    again = [("", "+4915112345678", ""), ("", "+4915112345679", "k-1"), ("", "", "b-1"), ("cid@example.com", "", "c-1")]
    other_person = ("other@example.com", "+4915112345678", "")
    file = table(("email", "phone", "external_id"), *first, *others, *again, other_person)
    dry = counts(await capture.send(file, dry_run="true"))
    assert (dry[0], dry[3]) == (604, 0)
    assert counts(await capture.send(file))[0] == dry[0]


@pytest.mark.parametrize("form", ["csv", "ndjson"])
async def test_bad_rows_are_told_with_their_lines_and_reasons_and_the_others_are_taken(
    capture: Importing, form: str
) -> None:
    rows: list[dict[str, Any]] = [
        {"email": ANN, "employees": "50"},
        {"email": "nothing", "employees": ""},
        {"email": BEN, "employees": "many"},
        {"email": "", "employees": "7"},
        {"email": "cid@example.com", "employees": "1,200"},
    ]
    if form == "csv":
        file = table(("email", "employees"), *([*row.values()] for row in rows)) + b"one cell\r\n"
    else:
        file = b"".join(orjson.dumps(row) + b"\n" for row in rows) + b"{broken\n"
    job = await capture.send(file, form)
    assert counts(job) == (2, 0, 0, 4)
    bad = await capture.errors(job)
    first = 2 if form == "csv" else 1
    assert [int(row["line"]) for row in bad] == [first + 1, first + 2, first + 3, first + 5]
    assert [row["reason"].partition(":")[0] for row in bad[:3]] == [
        "email",
        "employees",
        bad[2]["reason"].partition(":")[0],
    ]
    assert "is required" in bad[2]["reason"]
    assert bad[1]["email"] == BEN
    assert (await capture.by_email("cid@example.com"))["employees"] == 1_200


async def test_bad_rows_can_be_corrected_and_sent_again(capture: Importing) -> None:
    job = await capture.send(table(("email", "company"), ("ann(at)example.com", "=1+1")))
    answer = await capture.get(f"imports/{job['import_id']}/errors")
    assert "'=1+1" in answer.text
    again = await capture.send(answer.content.replace(b"(at)", b"@"))
    assert counts(again) == (1, 0, 0, 0)
    ann = await capture.by_email(ANN)
    assert (ann["company"], ann["attributes"]) == ("=1+1", {})


async def test_an_erased_person_is_refused_until_they_come_back_on_their_own(capture: Importing) -> None:
    ann = await capture.lead(email=ANN, external_id="crm-1")
    await capture.post(f"leads/{ann['lead_id']}:erase", {})
    for file in (table(("email", "company"), (ANN, "Acme")), table(("external_id", "company"), ("crm-1", "Acme"))):
        refused = await capture.send(file)
        assert counts(refused) == (0, 0, 0, 1)
        assert [row["reason"] for row in await capture.errors(refused)] == ["person_erased"]
    touches = await capture.send(table(("email", "type"), (ANN, "page_view")), kind="touches")
    assert [row["reason"] for row in await capture.errors(touches)] == ["person_erased"]
    back = await capture.lead(email=ANN)
    assert back["lead_id"] != ann["lead_id"]
    taken = await capture.send(table(("email", "company"), (ANN, "Acme")))
    assert counts(taken) == (0, 1, 0, 0)
    assert (await capture.by_email(ANN))["company"] == "Acme"


async def test_a_file_that_is_older_than_an_erasure_is_still_about_the_erased_person(capture: Importing) -> None:
    ann = await capture.lead(email=ANN)
    await capture.post_file(table(("email", "company"), (ANN, "Acme")))
    await capture.post(f"leads/{ann['lead_id']}:erase", {})
    await capture.lead(email=ANN)
    await capture.work()
    (job,) = (await capture.get("imports")).json()["items"]
    assert counts(job) == (0, 0, 0, 1)
    assert (await capture.by_email(ANN))["company"] is None


async def test_imports_wait_while_the_relay_is_far_behind(capture: Importing) -> None:
    job = (await capture.post_file(table(*people(3)))).json()
    await capture.rows(FAR_AHEAD, FURTHEST_BEHIND + 1)
    assert await Imports(capture.harness.consumer_runtime).run() == BEHIND_PAUSE
    assert (await capture.job(job["import_id"]))["state"] == "queued"
    await capture.rows("UPDATE relay_cursors SET position = 2 WHERE log = 1 RETURNING log")
    await capture.work()
    assert counts(await capture.job(job["import_id"])) == (3, 0, 0, 0)


async def test_rows_of_every_kind_are_what_the_api_makes_of_them(capture: Importing) -> None:
    touches = table(
        ("Email", "Event", "Timestamp", "utm_source", "Plan"), (ANN, "Page View", ago(days=2), "google", "pro")
    )
    conversions = table(("Email", "Order ID", "Total", "Currency", "type"), (ANN, "o-1", "1,249.90", "eur", "purchase"))
    costs = table(("Day", "Channel", "Spend", "Currency"), ("2026-11-01", "Paid Search", "12,50", "EUR"))
    for kind, file in (("touches", touches), ("conversions", conversions), ("costs", costs)):
        for outcome in ((1, 0, 0, 0), (0, 0, 1, 0)):
            job = await capture.send(file, kind=kind)
            assert counts(job) == outcome, await capture.errors(job)
    (touch,) = await capture.harness.told(TouchRecorded)
    assert (touch.type, touch.source, touch.lead_id) == (
        "page_view",
        "google",
        capture.harness.runtime.ids.of_email(ANN),
    )
    (conversion,) = await capture.harness.told(ConversionRecorded)
    assert (conversion.external_id, conversion.value_minor, conversion.currency) == ("o-1", 124_990, "EUR")
    (cost,) = await capture.harness.told(CostRecorded)
    assert (cost.amount_minor, cost.channel) == (1_250, "Paid Search")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("said", [False, True])
async def test_files_come_in_many_encodings_and_packed(capture: Importing, encoding: str, said: bool) -> None:
    text = "email;first_name\r\nann@example.com;Jürgen\r\n"
    how = {"encoding": encoding} if said else {}
    job = await capture.send(gzip.compress(text.encode(encoding)), headers={"content-encoding": "gzip"}, **how)
    assert counts(job) == (1, 0, 0, 0), await capture.errors(job)
    assert (await capture.by_email(ANN))["first_name"] == "Jürgen"


@pytest.mark.parametrize("cut", [1, 2, 3])
async def test_a_file_is_read_the_same_however_the_network_cuts_it(capture: Importing, cut: int) -> None:
    file = "email;first_name\r\nann@example.com;Jürgen\r\n".encode("utf-16")

    async def pieces() -> AsyncIterator[bytes]:
        yield file[:cut]
        yield file[cut:]

    job = await capture.made()
    assert (await capture.put(job, pieces())).status_code == 200
    assert (await capture.post(f"imports/{job['import_id']}:start", {})).status_code == 200
    await capture.work()
    assert counts(await capture.job(job["import_id"])) == (1, 0, 0, 0)


async def test_an_expression_can_say_where_a_field_stands(capture: Importing) -> None:
    rows = b'{"person": {"mail": "ann@example.com"}, "firm": {"name": "acme", "size": 12}}\n'
    mapping: dict[str, Any] = {
        "email": "person.mail",
        "company": {"cel": "body.firm.name + ' Inc'"},
        "employees": "firm.size",
    }
    mapping |= {
        "annual_revenue": {"cel": "double(body.firm.size) * 1000.0"},
        "attributes.half": {"cel": "double(body.firm.size) / 8.0"},
    }
    job = await capture.send(rows, "ndjson", mapping=mapping)
    assert counts(job) == (1, 0, 0, 0), await capture.errors(job)
    ann = await capture.by_email(ANN)
    assert (ann["company"], ann["employees"], ann["annual_revenue"]) == ("acme Inc", 12, 12_000)
    assert ann["attributes"] == {"half": 1.5}


@pytest.mark.parametrize(
    ("said", "status", "pointer"),
    [
        ({"kind": "people"}, 422, "/kind"),
        ({"format": "xlsx"}, 422, "/format"),
        ({"delimiter": '"'}, 422, "/delimiter"),
        ({"encoding": "klingon"}, 422, "/encoding"),
        ({"encoding": "utf-7"}, 422, "/encoding"),
        ({"encoding": "raw_unicode_escape"}, 422, "/encoding"),
        ({"encoding": "idna"}, 422, "/encoding"),
        ({"mapping": {"nonsense": "a"}}, 422, "/mapping/nonsense"),
        ({"mapping": {"email": {"cel": "body."}}}, 422, "/mapping/email/cel"),
        ({"defaults": {"phone_country": "XX"}}, 422, "/defaults/phone_country"),
        ({"unknown": 1}, 422, "/unknown"),
    ],
)
async def test_what_means_nothing_is_refused_with_its_place(
    capture: Importing, said: dict[str, Any], status: int, pointer: str
) -> None:
    answer = await capture.post("imports", said)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (status, pointer)


async def test_files_that_cannot_be_imported_are_refused_and_leave_nothing(capture: Importing) -> None:
    for content, status, words in (
        (b"", 400, "empty"),
        (b"PK\x03\x04....", 400, "workbook"),
        (b"color,size\nred,1\n", 422, "whom or what"),
        (b"not gzip", 400, "gzip"),
    ):
        coding = {"content-encoding": "gzip"} if content == b"not gzip" else {}
        answer = await capture.post_file(content, headers=coding)
        assert answer.status_code == status, answer.text
        assert words in answer.text
    answer = await capture.post_file(b"email\n", headers={"content-encoding": "br"})
    assert answer.status_code == 415
    answer = await capture.post_file(table(("email",), (ANN,)), mapping={"email": "Mail"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/mapping/email")
    assert await capture.rows("SELECT 1 FROM imports UNION ALL SELECT 1 FROM import_pieces") == []
    assert (await capture.get("imports/nothing")).status_code == 404


async def test_the_same_idempotency_key_makes_one_import(capture: Importing) -> None:
    file = table(("email",), (ANN,))
    answers = [await capture.post_file(file, headers={"idempotency-key": "once"}) for _ in range(2)]
    assert answers[0].json()["import_id"] == answers[1].json()["import_id"]
    assert len(await capture.rows("SELECT DISTINCT file_id FROM import_pieces")) == 1
    other = await capture.post_file(table(("email",), (BEN,)), headers={"idempotency-key": "once"})
    assert other.status_code == 422


async def test_a_cancelled_import_stops_and_forgets_its_file(capture: Importing) -> None:
    response = await capture.post_file(table(*people(10)))
    import_id = response.json()["import_id"]
    cancelled = await capture.post(f"imports/{import_id}:cancel", {})
    assert cancelled.json()["state"] == "cancelled"
    await capture.work()
    assert (await capture.job(import_id))["rows_done"] == 0
    assert await capture.rows("SELECT 1 FROM import_pieces") == []
    assert (await capture.post(f"imports/{import_id}:cancel", {})).status_code == 200
    assert (await capture.post(f"imports/{import_id}:start", {})).status_code == 409


async def test_a_file_over_the_limit_is_refused_however_it_is_packed(settings: Settings) -> None:
    small = settings.model_copy(update={"import_limit": 10_000})
    async with harness(service_code("capture"), small) as made:
        capture = Importing(made)
        answer = await capture.post_file(gzip.compress(b"email\n" * 100_000), headers={"content-encoding": "gzip"})
        assert answer.status_code == 413
        assert "split it" in answer.json()["detail"]
        answer = await capture.post_file(b"email\n" * 100_000)
        assert answer.status_code == 413
        assert await capture.rows("SELECT 1 FROM import_pieces") == []


async def test_two_workers_carry_each_row_out_once(capture: Importing) -> None:
    for number in range(3):
        await capture.post_file(table(("email", "company"), *((f"p{n}@example.com", f"C{number}") for n in range(400))))
    runtime = capture.harness.consumer_runtime
    await asyncio.gather(*(Imports(runtime).run() for _ in range(4)))
    await capture.work()
    jobs = (await capture.get("imports")).json()["items"]
    assert [(job["state"], job["rows_done"]) for job in jobs] == [("done", 400)] * 3
    captured = await capture.harness.told(LeadCaptured)
    assert (
        len(captured)
        == len({event.event_id for event in captured})
        == sum(job["created"] + job["updated"] for job in jobs)
    )
