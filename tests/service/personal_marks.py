"""Somebody who leaves a mark of their own wherever something can be said of a person; and where marks are found."""

from datetime import UTC, datetime, timedelta

import asyncpg

from services.capture.imports.carrying import Imports
from shared.settings import Settings
from tests.service.company import Company
from tests.service.forms_world import FORM, carried
from tests.service.nurture_world import SEQUENCE, make_sender, open_inbox

MARKS = {
    "email": "qzemail",
    "phone": "1632960987",
    "external id": "qzexternal",
    "browser": "qzbrowser",
    "first name": "qzfirst",
    "last name": "qzlast",
    "title": "qztitle",
    "attribute": "qzattribute",
    "consent text": "qzconsent",
    "address of the network": "203.0.113.88",
    "property of a touch": "qzproperty",
    "query of a page": "qzquery",
    "deal": "qzdeal",
    "why a deal was lost": "qzlost",
    "why a deal was reopened": "qzreopened",
    "note about a deal": "qznote",
    "request that was not understood": "qzhook",
    "answer to a form": "qzanswer",
    "row of a file": "qzrow",
    "key of a call": "qzcall",
}
"""What is personal, and the mark it carries."""
COMPANY = {"company": "qzcompany", "use case": "qzusecase", "industry": "qzindustry", "region": "qzregion"}
"""What is said of the company that somebody is of."""
COLUMNS = """
SELECT table_schema, table_name, column_name, data_type FROM information_schema.columns
JOIN information_schema.tables USING (table_schema, table_name)
WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')
  AND data_type IN ('text', 'character varying', 'json', 'jsonb', 'bytea', 'ARRAY', 'name', 'xml')
"""
FRESH = "INSERT INTO feed_watermarks VALUES ($1, $2, $3, $4)"
NAMED = "%s@people.example.com"
MONEY = {"value_minor": 500, "currency": "EUR"}


async def live(everybody: Company, settings: Settings, *, name: str = "") -> str:
    """Somebody does all that a person can do; their marks end in `name`. Answers their lead id."""
    capture, routing, nurture = everybody.capture, everybody.services["routing"], everybody.services["nurture"]
    marks = {what: mark + (name if mark.isalpha() else "") for what, mark in {**MARKS, **COMPANY}.items()}
    email = NAMED % marks["email"]
    rep = {"name": "Rep", "email": f"rep{name}@acme.example", "time_zone": "UTC"}
    assert (await routing.client.post("/v1/reps", json=rep)).status_code == 201
    step = {"subject": "Hello {{ lead.first_name }}", "text": "https://a.example/?who={{ lead.email }}"}
    steps = [{"id": "first", "send": {"channel": "email", "template": step}}]
    sequence = {**SEQUENCE, "name": f"Test {name}", "trigger": "event.type == 'form_submitted'", "steps": steps}
    assert (await nurture.client.post("/v1/sequences", json=sequence)).status_code == 201
    address = f"https://a.example/p?q={marks['query of a page']}"
    await capture.post("touches", {"anonymous_id": marks["browser"], "type": "page_view", "url": address})
    evidence = {"method": "form", "text": marks["consent text"], "ip": marks["address of the network"], "url": address}
    touch = {"type": "form_submitted", "properties": {"p": marks["property of a touch"]}, "url": address}
    lead = {
        "email": email,
        "phone": f"+44{marks['phone']}" if not name else None,
        "external_id": marks["external id"],
        "anonymous_id": marks["browser"],
        "first_name": marks["first name"],
        "last_name": marks["last name"],
        "title": marks["title"],
        "company": marks["company"],
        "use_case": marks["use case"],
        "industry": marks["industry"],
        "region": marks["region"],
        "country": "GB",
        "attributes": {"note": marks["attribute"]},
        "consents": [{"channel": "email", "state": "granted", "evidence": evidence}],
        "touch": touch,
    }
    answer = await capture.post("leads", lead, idempotency_key=marks["key of a call"])
    assert answer.status_code == 201, answer.text
    lead_id: str = answer.json()["lead_id"]
    for kind in ("demo_requested", "page_view"):
        await capture.post("touches", {"email": email, "type": kind, "url": address})
    await everybody.settle()
    await _write_to(everybody, settings, email)
    await _sell(everybody, lead_id, marks)
    await capture.post("conversions", {"email": email, "external_id": f"o-1{name}", "type": "payment", **MONEY})
    source = await capture.source()
    await capture.hook(source, f"no JSON at all: {marks['request that was not understood']}".encode())
    await _import(everybody, marks)
    await _fill_in(everybody, marks)
    await everybody.settle()
    return lead_id


async def _sell(everybody: Company, lead_id: str, marks: dict[str, str]) -> None:
    client = everybody.services["routing"].client
    deal = {"lead_id": lead_id, "external_id": f"d-{marks['deal'][6:]}", "name": f"Deal of {marks['deal']}", **MONEY}
    deal |= {"notes": {"promises": marks["note about a deal"]}}
    answer = await client.post("/v1/deals", json=deal, headers={"idempotency-key": "d"})
    assert answer.status_code == 201, answer.text
    lost = {"lost": True, "reason": f"because {marks['why a deal was lost']}"}
    deal_id = answer.json()["deal_id"]
    answer = await client.patch(f"/v1/deals/{deal_id}", json=lost, headers={"idempotency-key": "l"})
    assert answer.status_code == 200 and marks["why a deal was lost"] in answer.text, answer.text
    answer = await client.post(f"/v1/deals/{deal_id}:reopen", json={"reason": marks["why a deal was reopened"]})
    assert answer.status_code == 200, answer.text
    answer = await client.patch(f"/v1/deals/{deal_id}", json=lost)
    assert marks["why a deal was reopened"] in (await client.get(f"/v1/deals/{deal_id}/history")).text


async def _import(everybody: Company, marks: dict[str, str]) -> None:
    """A file whose second row is bad."""
    capture = everybody.services["capture"]
    mark = marks["row of a file"]
    text = f"email,first_name\n{NAMED % mark},{mark}\nno address,{mark}\n"
    answer = await capture.client.post("/v1/imports", content=text.encode(), headers={"content-type": "text/csv"})
    assert answer.status_code == 201, answer.text
    assert await Imports(capture.consumer_runtime).run() is None


async def _fill_in(everybody: Company, marks: dict[str, str]) -> None:
    """A form, filled in as fast as a machine does it: the answers are kept to be looked at."""
    capture = everybody.capture
    form_id = (await capture.post("forms", {**FORM, "name": f"Form {marks['email'][7:]}."})).json()["form_id"]
    page = await capture.harness.client.get(f"/f/{form_id}", headers={"accept": "text/html"})
    answers = {"email": NAMED % marks["answer to a form"], "first_name": marks["answer to a form"]}
    sent = await capture.harness.client.post(
        f"/f/{form_id}", data={**carried(page.text), **answers}, headers={"accept": "text/html"}
    )
    assert sent.status_code < 400, sent.text


async def _write_to(everybody: Company, settings: Settings, email: str) -> None:
    """What is due is sent."""
    nurture = everybody.services["nurture"]
    at = datetime.now(UTC) + timedelta(hours=1)
    async with nurture.runtime.database.reading() as connection:
        await connection.execute("DELETE FROM feed_watermarks")
        for topic, sources in (("leads", ("capture", "nurture")), ("messages", ("nurture",))):
            for source in sources:
                for partition in range(settings.topic_partitions):
                    await connection.execute(FRESH, topic, partition, source, at)
    async with open_inbox() as inbox:
        await make_sender(nurture.consumer_runtime, inbox.url).run()
        assert inbox.subjects(email), "the message was sent"


async def columns_with(url: str, marks: dict[str, str]) -> dict[str, set[str]]:
    """The columns in which marks stand in clear, as `schema.table.column`, with what is read there."""
    connection = await asyncpg.connect(url)
    try:
        found: dict[str, set[str]] = {}
        for row in await connection.fetch(COLUMNS):
            table, column = f'"{row["table_schema"]}"."{row["table_name"]}"', row["column_name"]
            name = f"{row['table_schema']}.{row['table_name'].rstrip('0123456789').rstrip('_')}.{column}"
            shown = f'"{column}"' if row["data_type"] == "bytea" else f'"{column}"::text'
            for (value,) in await connection.fetch(f"SELECT {shown} FROM {table} WHERE {shown} IS NOT NULL"):
                text = (value if isinstance(value, bytes) else value.encode()).lower()
                for what, mark in marks.items():
                    if mark.encode() in text:
                        found.setdefault(name, set()).add(what)
        return found
    finally:
        await connection.close()
