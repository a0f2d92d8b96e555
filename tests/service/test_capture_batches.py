"""Many calls about people at once have the results that they have one after another."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import services.capture.leads.batches as batches_module
from services.capture.accounts import standings
from services.capture.consent.domain import ConsentWord
from services.capture.duplicates import queries as likenesses
from services.capture.erasures.domain import Wish
from services.capture.leads.batches import capture_leads
from services.capture.leads.erasure import erase
from services.capture.leads.handlers import Captured, LeadCall, capture_lead
from services.capture.leads.identifying import Named
from services.capture.leads.merging import unmerge_by_hand
from services.capture.leads.telling import Cause
from shared.clock import SystemClock
from shared.db import COPIED_FROM, Connection
from shared.errors import Rejected
from shared.ids import LeadId
from shared.service import Runtime, build_runtime
from shared.testing import make_settings
from tests.conftest import DatabaseServer
from tests.service.capture_world import NOW

TABLES = (
    *("leads", "identifiers", "links", "separations", "consent_entries", "person_keys", "event_log"),
    *("erasure_reports", "erased_ids", "erasures", "person_export_chunks", "person_exports"),
    *("account_domains", "lead_accounts", "rematches", "accounts", "likeness_keys", "likeness_checks", "likenesses"),
)
EMPTY = ";".join(f"DELETE FROM {table}" for table in TABLES)  # TRUNCATE takes longer for a few rows
STATES = {
    "leads": "SELECT lead_id, made_from, revision, sealed, origin, captured_at, merged_into, erased_at IS NOT NULL "
    "AS erased FROM leads ORDER BY lead_id",
    "identifiers": "SELECT own_id, kind, lead_id FROM identifiers ORDER BY own_id",
    "links": "SELECT anonymous_id, at, lead_id FROM links ORDER BY 1, 2, 3",
    "separations": "SELECT lead_id, other_id FROM separations ORDER BY 1, 2",
    "consent": "SELECT event_id, lead_id, channel, state, occurred_at, received_at, origin, reason "
    "FROM consent_entries ORDER BY event_id",
}
ACCOUNTS = "SELECT key FROM event_log WHERE type = 'throughline.account.changed.v1'"
TOLD = "SELECT type, key, value FROM event_log WHERE value IS NOT NULL ORDER BY event_id, position"

emails = st.sampled_from([None, "ann@example.com", "ben@example.com"])
phones = st.sampled_from([None, "+4915112345678", "+4915112345679"])
external_ids = st.sampled_from([None, None, "crm-1", "crm-2"])
browsers = st.sampled_from([None] * 7 + ["browser-1", "browser-2"])
seldom = st.sampled_from([False] * 5 + [True])
texts = st.sampled_from(["Acme", "Bolt", "Coil"])
consents: st.SearchStrategy[Sequence[ConsentWord]] = st.lists(
    st.builds(ConsentWord, st.sampled_from(["email", "sms"]), st.sampled_from(["granted", "denied", "pending"])),
    max_size=2,
)


@st.composite
def calls(draw: st.DrawFn) -> LeadCall:
    """A call by some of few identifiers, so that they meet."""
    named = Named(
        email=draw(emails),
        phone=draw(phones),
        external_id=draw(external_ids),
        anonymous_id=draw(browsers),
        origin="crm",
    )
    if not any((named.email, named.phone, named.external_id, named.anonymous_id)):
        named = Named(email="ann@example.com", origin="crm")
    told: dict[str, Any] = draw(st.dictionaries(st.sampled_from(["company", "title"]), texts, max_size=2))
    told |= draw(st.dictionaries(st.just("attributes.plan"), st.sampled_from([None, "pro", 5]), max_size=1))
    told |= {name: value for name in ("email", "phone") if (value := getattr(named, name))}
    if named.external_id:
        told["external_ids.crm"] = named.external_id
    at = NOW - timedelta(minutes=draw(st.integers(0, 5)))
    return LeadCall(
        named=named,
        told=told,
        cause=Cause("crm", at, NOW, draw(st.sampled_from([None, "because"]))),
        consent=draw(consents),
        stored_at=NOW - timedelta(hours=1) if draw(seldom) else None,
        again=draw(seldom),
    )


Upheaval = tuple[str, str]
upheavals = st.tuples(st.sampled_from(["erase", "unmerge"]), st.sampled_from(["ann@example.com", "ben@example.com"]))
batches = st.builds(
    lambda batch, refuse, first: [
        replace(call, may_return=not (refuse or (first and index == 0))) for index, call in enumerate(batch)
    ],
    st.lists(calls(), min_size=1, max_size=4),
    seldom,
    seldom,
)
histories = st.lists(st.one_of(batches, batches, batches, upheavals), min_size=2, max_size=8)


class Side:
    """One of two installations that hear the same."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    async def upheaval(self, kind: str, email: str) -> None:
        lead_id = self.runtime.ids.of_email(email)
        try:
            async with self.runtime.database.transaction() as tx:
                if kind == "erase":
                    await erase(lead_id, Wish("somebody"), tx, self.runtime)
                else:
                    await unmerge_by_hand(lead_id, Cause("api", NOW, NOW), tx, self.runtime)
        except Rejected:
            pass  # nobody there to erase or to tell apart

    async def state(self) -> dict[str, list[dict[str, Any]]]:
        async with self.runtime.database.reading() as connection:
            state = {name: [dict(row) for row in await connection.fetch(each)] for name, each in STATES.items()}
            for row in state["leads"]:
                row["sealed"] = row["sealed"] and await self._opened(connection, row["lead_id"], row["sealed"])
            state["told"] = await self._told(connection)
        return state

    async def _told(self, connection: Connection) -> list[dict[str, Any]]:
        told = []
        accounts = {row["key"] for row in await connection.fetch(ACCOUNTS)}
        for row in await connection.fetch(TOLD):
            fact = orjson.loads(row["value"])
            fact.pop("position", None)
            for name in ("account_id", "account_matched_by"):  # ids of chance, and names by whom was seen first
                fact.pop(name, None)
            if fact.pop("wrapped_key", None):
                fact.pop("event_id")
            if row["key"] in accounts or row["type"] == "throughline.erasure.reported.v1":
                continue
            if row["type"] in ("throughline.lead.erased.v1", "throughline.lead.unmerged.v1"):
                continue  # told at the clock's time, by what both sides do in the same way
            if block := fact.pop("personal", None):
                opened = await self._opened(connection, LeadId(row["key"]), block)
                fact["opened"] = {**opened, "account_reason": None} if isinstance(opened, dict) else opened
            told.append({"type": row["type"], **fact})
        return told

    async def _opened(self, connection: Connection, lead_id: LeadId, block: str) -> Any:
        if await connection.fetchval("SELECT destroyed_at FROM person_keys WHERE lead_id = $1", lead_id):
            return "unreadable"
        (opened,) = await self.runtime.keys.open_many(connection, [(lead_id, block)])
        return orjson.loads(opened or b"null")

    async def empty(self) -> None:
        async with self.runtime.database.reading() as connection:
            await connection.execute(EMPTY)
        self.runtime.keys.forget(list(self.runtime.keys._cache))


async def one_by_one(side: Side, batch: Sequence[LeadCall]) -> list[Captured | Rejected | None]:
    answers: list[Captured | Rejected | None] = []
    for call in batch:
        try:
            async with side.runtime.database.transaction() as tx:
                answers.append(await capture_lead(call, tx, side.runtime))
        except Rejected as exc:
            answers.append(exc)
    return answers


async def at_once(side: Side, batch: Sequence[LeadCall]) -> list[Captured | Rejected | None]:
    async with side.runtime.database.transaction() as tx:
        return await capture_leads(batch, tx, side.runtime)


@pytest.fixture(params=[COPIED_FROM, 2], ids=["few", "many"])
def copied_from(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many new rows go by COPY."""
    for module in (batches_module, standings, likenesses):
        monkeypatch.setattr(module, "COPIED_FROM", request.param)


@pytest.fixture
def sides(database_server: DatabaseServer, template_database: str) -> Iterator[Any]:
    """Two empty databases, and a loop that outlives the examples."""
    names = ["batches_one", "batches_many"]
    with asyncio.Runner() as runner:
        made = [
            Side(
                build_runtime(
                    "capture", make_settings(database_server.make(name, template_database)), clock=SystemClock()
                )
            )
            for name in names
        ]
        yield (runner, *made)
        for side in made:
            runner.run(side.runtime.database.close())
    for name in names:
        database_server.drop(name)


@pytest.mark.slow
@pytest.mark.usefixtures("copied_from")
def test_many_at_once_is_as_one_after_another(sides: Any) -> None:
    runner, single, batched = sides

    @settings(max_examples=settings().max_examples // 5, deadline=None)
    @given(histories)
    def compare(history: list[list[LeadCall] | Upheaval]) -> None:
        runner.run(_compare(history, single, batched))

    compare()


async def _compare(history: list[list[LeadCall] | Upheaval], single: Side, batched: Side) -> None:
    for side in (single, batched):
        await side.empty()
    for step in history:
        if isinstance(step, tuple):
            for side in (single, batched):
                await side.upheaval(*step)
            continue
        expected, found = await one_by_one(single, step), await at_once(batched, step)
        assert [_shown(each) for each in found] == [_shown(each) for each in expected]
    assert await batched.state() == await single.state()


def _shown(answer: Captured | Rejected | None) -> Any:
    return type(answer) if isinstance(answer, Rejected) else answer
