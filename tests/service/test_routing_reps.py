"""Reps and rules over HTTP: what is told is kept, and what makes no sense is refused where it is wrong."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from shared.settings import Settings
from shared.testing import token
from tests.service.routing_support import Routing, lead_id, routing_service

JSON = {"content-type": "application/json"}
ANN = {"name": "Ann", "email": "ann@sales.example.com", "time_zone": "Europe/Vienna"}


@pytest.fixture
async def routing(settings: Settings) -> AsyncIterator[Routing]:
    async with routing_service(settings) as service:
        yield service


async def test_a_rep_is_kept_as_told_and_changed_in_parts(routing: Routing) -> None:
    told: dict[str, Any] = {
        **ANN,
        "territories": ["AT", "DE"],
        "skills": ["analytics"],
        "teams": ["dach"],
        "seniority": 3,
        "weight": 50,
        "capacity": 20,
        "daily_capacity": 5,
        "weekly_capacity": 20,
        "monthly_capacity": 60,
        "working_hours": {"mon": [["09:00", "12:00"], ["13:00", "17:00"]], "fri": [["22:00", "06:00"]]},
        "holidays": {"country": "AT", "subdivision": "9"},
        "time_off": [{"from": "2026-12-24", "to": "2027-01-02", "reason": "holidays"}],
    }
    made = await routing.client.post("/v1/reps", json=told)
    assert made.status_code == 201
    rep = made.json()
    assert {name: rep[name] for name in told} == told
    assert (rep["active"], rep["open_leads"]) == (True, 0)
    path = f"/v1/reps/{rep['rep_id']}"
    changed = await routing.client.patch(path, json={"capacity": None, "working_hours": None, "weight": 100})
    assert changed.status_code == 200
    expected = {**told, "capacity": None, "working_hours": None, "weight": 100}
    assert {name: (await routing.client.get(path)).json()[name] for name in told} == expected


IMPOSSIBLE_REPS: list[tuple[dict[str, Any], str]] = [
    ({"time_zone": "Mars/Olympus"}, "/time_zone"),
    ({"time_zone": None}, "/time_zone"),
    ({"time_zone": "../etc/passwd"}, "/time_zone"),
    ({"time_zone": "localtime"}, "/time_zone"),
    ({"email": "not an address"}, "/email"),
    ({"name": ""}, "/name"),
    ({"name": "a\x00b"}, "/name"),
    ({"weight": -1}, "/weight"),
    ({"capacity": "many"}, "/capacity"),
    ({"territories": "AT"}, "/territories"),
    ({"skills": [1]}, "/skills/0"),
    ({"working_hours": {}}, "/working_hours"),
    ({"working_hours": {"monday": [["09:00", "17:00"]]}}, "/working_hours/monday"),
    ({"working_hours": {"mon": [["9:00", "17:00"]]}}, "/working_hours/mon/0/0"),
    ({"working_hours": {"mon": [["09:00", "25:00"]]}}, "/working_hours/mon/0/1"),
    ({"working_hours": {"mon": [["09:00", "09:00"]]}}, "/working_hours/mon"),
    ({"working_hours": {"mon": [["24:00", "06:00"]]}}, "/working_hours/mon"),
    ({"working_hours": {"sun": [["22:00", "06:00"]], "mon": [["05:00", "12:00"]]}}, "/working_hours"),
    ({"daily_capacity": -1}, "/daily_capacity"),
    ({"monthly_capacity": 1.5}, "/monthly_capacity"),
    ({"holidays": {"country": "XX"}}, "/holidays"),
    ({"holidays": {"country": "DE", "subdivision": "CA"}}, "/holidays"),
    ({"holidays": {"country": "Germany"}}, "/holidays/country"),
    ({"holidays": {"subdivision": "BY"}}, "/holidays/country"),
    ({"working_hours": {"mon": [["09:00", "13:00"], ["12:00", "17:00"]]}}, "/working_hours/mon"),
    ({"time_off": [{"from": "2026-12-24"}]}, "/time_off/0/to"),
    ({"time_off": [{"from": "2026-12-24", "to": "2026-12-24"}]}, "/time_off/0"),
    ({"time_off": [{"from": "2026-02-30", "to": "2026-12-24"}]}, "/time_off/0/from"),
    ({"time_off": [{"from": "2026-12-24T10:00:00", "to": "2026-12-25"}]}, "/time_off/0/from"),
    ({"salary": 1}, "/salary"),
]


async def test_a_rep_that_cannot_be_is_refused_and_not_stored(routing: Routing) -> None:
    for fields, pointer in IMPOSSIBLE_REPS:
        refused = await routing.client.post("/v1/reps", json={**ANN, **fields})
        assert refused.status_code == 422, fields
        assert [error["pointer"] for error in refused.json()["errors"]] == [pointer], fields
    assert (await routing.client.get("/v1/reps")).json()["items"] == []


async def test_two_reps_do_not_share_an_address(routing: Routing) -> None:
    assert (await routing.client.post("/v1/reps", json=ANN)).status_code == 201
    again = await routing.client.post("/v1/reps", json={**ANN, "email": "ANN@Sales.Example.com"})
    assert (again.status_code, again.json()["errors"][0]["pointer"]) == (409, "/email")
    bob = await routing.hire("bob")
    assert (await routing.client.patch(f"/v1/reps/{bob}", json={"email": ANN["email"]})).status_code == 409


async def test_an_idempotency_key_hires_once(routing: Routing) -> None:
    answers = [await routing.client.post("/v1/reps", json=ANN, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert answers[0].json()["rep_id"] == answers[1].json()["rep_id"]
    assert len((await routing.client.get("/v1/reps")).json()["items"]) == 1


async def test_reps_come_in_pages_in_the_order_they_were_made(routing: Routing) -> None:
    made = [await routing.hire(name) for name in ("cid", "ann", "bob")]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params: dict[str, Any] = {"limit": 2, **({"cursor": cursor} if cursor else {})}
        page = (await routing.client.get("/v1/reps", params=params)).json()
        seen += [rep["rep_id"] for rep in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == made
    assert (await routing.client.get("/v1/reps?cursor=forged")).status_code == 400


SCOPES: list[tuple[str, str, dict[str, Any] | None, str]] = [
    ("GET", "/v1/reps", None, "routing:read"),
    ("POST", "/v1/reps", ANN, "routing:write"),
    ("GET", "/v1/rules", None, "routing:read"),
    ("PUT", "/v1/rules", {}, "routing:write"),
    ("GET", "/v1/holds", None, "routing:read"),
    ("GET", "/v1/deals", None, "routing:read"),
    ("POST", "/v1/deals", {}, "routing:write"),
    ("GET", f"/v1/leads/{lead_id('one')}/assignment", None, "routing:read"),
    ("POST", f"/v1/leads/{lead_id('one')}/assignment:accept", {}, "routing:write"),
    ("POST", f"/v1/leads/{lead_id('one')}/assignment:reject", {"reason": "x"}, "routing:write"),
]


async def test_every_endpoint_needs_its_scope(routing: Routing) -> None:
    settings = routing.service.settings
    for method, path, body, scope in SCOPES:
        other = "capture:admin" if scope.endswith("read") else "routing:read"
        statuses = [
            (await routing.client.request(method, path, json=body, headers={"authorization": given})).status_code
            for given in ("", f"Bearer {token(settings, other)}", f"Bearer {token(settings, scope)}")
        ]
        assert statuses[:2] == [401, 403], path
        assert statuses[2] not in (401, 403), path


ABSENT = [
    ("GET", "/v1/reps/nobody"),
    ("GET", "/v1/deals/none"),
    ("GET", "/v1/leads/nobody/assignment"),
    ("POST", "/v1/leads/nobody/assignment:accept"),
]


async def test_what_is_not_there_is_404(routing: Routing) -> None:
    for method, path in ABSENT:
        answer = await routing.client.request(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json"), path


async def test_a_path_or_body_that_cannot_be_text_is_refused(routing: Routing) -> None:
    assert (await routing.client.get("/v1/reps/a%00b")).status_code == 404
    assert (await routing.client.get("/v1/leads/a%00b/assignment")).status_code == 404
    half = await routing.client.post(
        "/v1/reps", content=b'{"name": "\\ud83d", "email": "a@sales.example.com", "time_zone": "UTC"}', headers=JSON
    )
    assert half.status_code in (400, 422)
    broken = await routing.client.post("/v1/reps", content=b'{"name": ', headers=JSON)
    assert broken.status_code == 400
    rejected = await routing.client.post(f"/v1/leads/{lead_id('one')}/assignment:reject", json={})
    assert (rejected.status_code, rejected.json()["errors"][0]["pointer"]) == (422, "/reason")


async def test_rules_with_faults_are_refused_with_their_place_and_the_old_ones_stay(routing: Routing) -> None:
    document = {
        "rules": [{"id": "a", "when": "lead.country == 'AT' && lead.sise > 1", "strategy": "round_robin"}],
        "queues": [{"id": "everybody", "who": "true"}],
        "catch_all": {"queue": "everybody", "strategy": "round_robin"},
    }
    refused = await routing.client.put("/v1/rules", json=document)
    assert refused.status_code == 422
    error = refused.json()["errors"][0]
    assert (error["pointer"], error["column"]) == ("/rules/0/when", 30)
    shape = await routing.client.put("/v1/rules", json={**document, "rules": [{"id": "a", "strategy": "lottery"}]})
    assert {error["pointer"] for error in shape.json()["errors"]} == {"/rules/0/when", "/rules/0/strategy"}
    assert (await routing.client.get("/v1/rules")).json()["version"] == 1


async def test_rules_are_switched_back_in_one_call(routing: Routing) -> None:
    ann = await routing.hire("ann")
    await routing.hire("bob")
    await routing.put_rules(queues=[{"id": "everybody", "members": [{"rep_id": ann}]}])
    await routing.qualify("one", "two")
    back = await routing.client.post("/v1/rules:activate", json={"version": 1})
    assert (back.status_code, back.json()["version"]) == (200, 1)
    await routing.qualify("three", "four")
    owners = [await routing.owner(name) for name in ("one", "two", "three", "four")]
    assert owners[:2] == [ann, ann]
    assert len(set(owners[2:])) == 2
    assert (await routing.assignment("three"))["rules_version"] == 1


async def test_simulating_rules_says_who_would_have_got_what_and_changes_nothing(routing: Routing) -> None:
    ann, bob = await routing.hire("ann"), await routing.hire("bob")
    for name, country in (("one", "AT"), ("two", "AT"), ("three", "DE")):
        await routing.qualify(name, country=country)
        routing.clock.move(timedelta(seconds=1))
    draft = {
        "rules": [
            {"id": "at", "when": "lead.country == 'AT'", "who": f"rep.rep_id == '{bob}'", "strategy": "round_robin"}
        ],
        "queues": [{"id": "everybody", "who": "true"}],
        "catch_all": {"queue": "everybody", "strategy": "round_robin"},
    }
    answer = (await routing.client.post("/v1/rules:simulate", json={"document": draft, "days": 7})).json()
    assert (answer["leads"], answer["changed"]) == (3, 2)
    changed = {
        change["lead_id"]: (change["before"]["rep_id"], change["after"]["rep_id"]) for change in answer["changes"]
    }
    assert changed == {lead_id("one"): (ann, bob), lead_id("two"): (bob, bob)}
    assert answer["leads_by_rep"] == {ann: {"before": 2, "after": 1}, bob: {"before": 1, "after": 2}}
    assert [await routing.owner(name) for name in ("one", "two", "three")] == [ann, bob, ann]
    same = (await routing.client.post("/v1/rules:simulate", json={"version": 1, "days": 7})).json()
    assert same["changed"] == 0
