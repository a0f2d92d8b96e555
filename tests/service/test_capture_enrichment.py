"""Leads enriched by providers as data: real servers are asked, and what they say is told once, with its source."""

from datetime import timedelta
from typing import Any

import orjson
import pytest

from shared.events import LeadCaptured
from shared.ids import LeadId
from shared.settings import Settings
from tests.service.capture_world import NOW
from tests.service.enrichment_world import ACME, ANN, world_of
from tests.service.local_server import Asked, reply


async def test_a_provider_fills_what_is_missing_and_the_lead_is_told_anew(settings: Settings) -> None:
    async with world_of(settings) as world:
        await world.provider(
            map={
                "industry": "response.company.industry",
                "employees": "response.company.size",
                "country": "response.company.country",
                "attributes.score": "response.score",
                "attributes.absent": "response.nothing.there",
            },
            confidence="response.score",
        )
        lead = await world.lead(email=ANN)
        await world.turn()
        after = (await world.get(f"leads/{lead['lead_id']}")).json()
        assert (after["industry"], after["employees"], after["country"]) == ("Robots", 120, "DE")
        assert (after["attributes"], after["revision"]) == ({"score": 0.9}, 2)
        told = await world.harness.told(LeadCaptured)
        assert [(event.revision, event.origin, event.industry) for event in told] == [
            (1, "api", None),
            (2, "enrichment:acme", "Robots"),
        ]
        field = (await world.enriched(lead["lead_id"]))["fields"]["industry"]
        assert (field["value"], field["origin"], field["confidence"]) == ("Robots", "enrichment:acme", 0.9)
        run = await world.run_of(lead["lead_id"])
        assert (run["outcome"], "attributes.absent" in run["detail"]) == ("found", True)
        assert [asked.target for asked in world.server.asked] == ["/acme/acme.com"]
        for _ in range(3):
            await world.turn(hours=1)
        assert len(world.server.asked) == 1
        assert len(await world.harness.told(LeadCaptured)) == 2


async def test_what_is_told_counts_before_what_is_found_unless_it_may_be_overwritten(settings: Settings) -> None:
    async with world_of(settings) as world:
        names = {"industry": "response.company.industry", "employees": "response.company.size"}
        await world.provider(map=names, policy={"employees": "overwrite"})
        lead = await world.lead(email=ANN, industry="Toys", employees=3)
        await world.turn()
        after = (await world.get(f"leads/{lead['lead_id']}")).json()
        assert (after["industry"], after["employees"]) == ("Toys", 120)
        fields = (await world.enriched(lead["lead_id"]))["fields"]
        told, found = sorted(fields["employees"]["claims"], key=lambda claim: claim["origin"])
        assert (told["value"], told["counts"], found["value"], found["counts"]) == (3, False, 120, True)
        assert (await world.run_of(lead["lead_id"]))["fields"] == ["employees"]
        later = await world.lead(email=ANN, employees=4)
        assert later["employees"] == 120


async def test_providers_are_asked_in_order_and_only_for_what_is_still_missing(settings: Settings) -> None:
    async def respond(asked: Asked) -> bytes:
        if asked.target.startswith("/first"):
            return reply(200, {"company": {"industry": "Robots"}})
        if asked.target.startswith("/empty"):
            return reply(404)
        return reply(200, {"company": {"industry": "Other", "size": 7}, "site": "acme.io"})

    async with world_of(settings) as world:
        world.server.respond = respond
        both = {"industry": "response.company.industry", "employees": "response.company.size"}
        await world.provider("last", order=30, map=both, stop_when=["industry", "employees"])
        await world.provider("never", order=40, map={"use_case": "'x'"})
        await world.provider("first", order=10, map=both)
        await world.provider("empty", order=20, map=both)
        await world.provider("done", order=15, map={"industry": "response.company.industry"})
        lead = await world.lead(email=ANN)
        await world.turn()
        assert [asked.target.split("/")[1] for asked in world.server.asked] == ["first", "empty", "last"]
        after = (await world.get(f"leads/{lead['lead_id']}")).json()
        assert (after["industry"], after["employees"], after["use_case"]) == ("Robots", 7, None)
        runs = {run["provider_id"]: run for run in (await world.enriched(lead["lead_id"]))["runs"]}
        assert {name: run["outcome"] for name, run in runs.items()} == {
            "first": "found",
            "done": "skipped",
            "empty": "nothing",
            "last": "found",
        }
        assert runs["last"]["fields"] == ["employees"]
        assert "missing" in runs["done"]["detail"]


async def test_a_later_step_uses_what_an_earlier_one_found(settings: Settings) -> None:
    async with world_of(settings) as world:
        await world.provider("one", order=1, map={"company": "'Acme'"})
        await world.provider(
            "two",
            order=2,
            when="lead.company == 'Acme'",
            map={"use_case": "response.company.industry"},
            request={"url": f"{world.address}/two", "query": {"name": "{company}"}},
        )
        lead = await world.lead(email=ANN)
        await world.turn()
        assert [asked.target for asked in world.server.asked] == ["/one/acme.com", "/two?name=Acme"]
        assert (await world.get(f"leads/{lead['lead_id']}")).json()["use_case"] == "Robots"


async def test_why_nobody_was_asked_is_told(settings: Settings) -> None:
    async with world_of(settings) as world:
        await world.provider("off", active=False)
        await world.provider("condition", when="lead.country == 'FR'")
        await world.provider("place")
        await world.provider("secret", auth={"type": "bearer"}, map={"use_case": "response.company.industry"})
        lead = await world.lead(email="ann@gmail.com", country="DE")
        other = await world.lead(email=ANN)
        await world.turn()
        runs = {run["provider_id"]: run["detail"] for run in (await world.enriched(lead["lead_id"]))["runs"]}
        assert (runs["condition"], runs["place"]) == ("when: false", "the lead has no domain")
        assert "credential" in (await world.run_of(other["lead_id"], "secret"))["detail"]
        assert "off" not in runs


@pytest.mark.parametrize(
    ("auth", "header", "query"),
    [
        ({"type": "bearer"}, ("authorization", "Bearer s3cret&"), ""),
        ({"type": "basic", "username": "us"}, ("authorization", "Basic dXM6czNjcmV0Jg=="), ""),
        ({"type": "header", "name": "X-Api-Key"}, ("x-api-key", "s3cret&"), ""),
        ({"type": "query", "name": "key"}, None, "&key=s3cret%26"),
    ],
)
async def test_a_credential_is_shown_to_the_provider_and_to_nobody_else(
    settings: Settings, auth: dict[str, str], header: tuple[str, str] | None, query: str
) -> None:
    async with world_of(settings) as world:
        request = {
            "method": "POST",
            "url": f"{world.address}/find?v=1",
            "query": {"q": "{company} & co"},
            "headers": {"x-region": "{email_domain}"},
            "body": {"email": "{email_hash}", "n": [1, "{domain}"]},
        }
        await world.provider(request=request, auth=auth)
        answer = await world.put("enrichment/providers/acme/credential", {"credential": "s3cret&"})
        assert answer.status_code == 204
        await world.lead(email=ANN, company="Åcme")
        await world.turn()
        (asked,) = world.server.asked
        assert asked.target == f"/find?v=1&q=%C3%85cme+%26+co{query}"
        assert header is None or asked.headers[header[0]] == header[1]
        assert (asked.headers["x-region"], asked.headers["content-type"]) == ("acme.com", "application/json")
        body = orjson.loads(asked.body)
        assert (len(body["email"]), body["n"]) == (64, [1, "acme.com"])
        shown = (await world.post("enrichment/providers/acme:test", {"lead": {"email": ANN, "company": "X"}})).json()
        listed = (await world.get("enrichment/providers")).json()
        assert "s3cret" not in str([shown, listed])
        assert (shown["asked"], shown["wins"]) == (True, {"industry": "Robots"})
        assert await world.rows("SELECT 1 FROM enrichment_providers WHERE credential LIKE '%s3cret%'") == []


async def test_an_answer_is_kept_for_others_at_the_same_company_and_expires(settings: Settings) -> None:
    async with world_of(settings) as world:
        await world.provider(cache={"key": "{domain}", "days": 7}, refresh=True)
        ann = await world.lead(email=ANN)
        await world.turn()
        ben = await world.lead(email="ben@acme.com")
        await world.turn(days=1)
        assert (len(world.server.asked), (await world.run_of(ben["lead_id"]))["outcome"]) == (1, "found")
        field = (await world.enriched(ben["lead_id"]))["fields"]["industry"]
        assert field["at"].startswith(NOW.strftime("%Y-%m-%dT%H:%M"))
        assert field["expires_at"].startswith((NOW + timedelta(days=7)).strftime("%Y-%m-%d"))
        world.server.answers = [reply(200, {"company": {"industry": "Drones"}})]
        await world.turn(days=7)
        assert len(world.server.asked) == 2
        for lead in (ann, ben):
            assert (await world.get(f"leads/{lead['lead_id']}")).json()["industry"] == "Drones"
        usage = (await world.get("enrichment/providers/acme")).json()
        assert (usage["today"]["calls"], usage["today"]["cache_hits"]) == (1, 1)
        (kept,) = await world.rows("SELECT * FROM enrichment_answers")
        assert "acme" not in kept["key"] + kept["sealed"] and kept["lead_id"] is None


async def test_an_expired_answer_of_a_provider_that_is_not_asked_any_more_gives_no_turn(settings: Settings) -> None:
    async with world_of(settings) as world:
        options: dict[str, Any] = {"cache": {"days": 7}, "refresh": True}
        await world.provider(**options)
        lead = await world.lead(email=ANN)
        await world.turn()
        assert (await world.enriched(lead["lead_id"]))["due_at"] is not None
        await world.provider(**options, when="lead.country == 'FR'")
        await world.turn(days=8)
        assert (await world.enriched(lead["lead_id"]))["due_at"] is None
        assert (len(world.server.asked), (await world.run_of(lead["lead_id"]))["outcome"]) == (1, "found")


async def test_erasing_a_person_drops_what_was_asked_and_answered_about_them(settings: Settings) -> None:
    async with world_of(settings) as world:
        await world.provider(cache={"days": 7}, request={"url": f"{world.address}/p/{{email}}"})
        lead = await world.lead(email=ANN)
        await world.turn()
        (asked,) = world.server.asked
        assert asked.target == "/p/ann%40acme.com"
        assert len(await world.rows("SELECT 1 FROM enrichment_answers WHERE lead_id IS NOT NULL")) == 1
        await world.post(f"leads/{lead['lead_id']}:erase", None)
        for table in ("enrichments", "enrichment_asks", "enrichment_answers"):
            assert await world.rows(f"SELECT 1 FROM {table}") == []
        await world.turn(minutes=5)
        assert len(world.server.asked) == 1


async def test_asking_again_asks_all_whatever_they_said_before(settings: Settings) -> None:
    async with world_of(settings, reply(404), reply(200, ACME)) as world:
        await world.provider(cache={"days": 30})
        lead = await world.lead(email=ANN)
        await world.turn()
        assert (await world.run_of(lead["lead_id"]))["outcome"] == "nothing"
        answer = await world.post(f"leads/{lead['lead_id']}:enrich", None)
        assert (answer.status_code, answer.json()["due_at"] is not None) == (202, True)
        await world.turn(seconds=1)
        assert (await world.run_of(lead["lead_id"]))["outcome"] == "found"
        await world.turn(seconds=1)
        assert len(world.server.asked) == 2
        assert (await world.post("leads/00000000-0000-8000-8000-000000000000:enrich", None)).status_code == 404


async def test_what_a_provider_says_no_more_is_gone(settings: Settings) -> None:
    async with world_of(settings, reply(200, ACME), reply(200, {"company": {}})) as world:
        await world.provider()
        lead = await world.lead(email=ANN)
        await world.turn()
        await world.post(f"leads/{lead['lead_id']}:enrich", None)
        await world.turn(seconds=1)
        assert (await world.get(f"leads/{lead['lead_id']}")).json()["industry"] is None


async def test_a_private_address_is_neither_saved_nor_called(settings: Settings) -> None:
    async with world_of(settings) as world:
        for url in (
            "http://10.0.0.1/x",
            "http://[::1]/x",
            "http://0x0a000001/",
            "http://{domain}/",
            "https://a.com:22/",
        ):
            document = {"title": "T", "request": {"url": url}, "map": {"industry": "'x'"}}
            answer = await world.put("enrichment/providers/evil", document)
            assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/request/url"), url
        lead = await world.lead(email=ANN)
        await world.provider()
        world.server.answers = [reply(302, b"", location=f"{world.address}/secret")]
        await world.lead(email=ANN, title="CEO")
        await world.turn()
        assert (await world.run_of(lead["lead_id"]))["detail"] == "it answered 302"
        assert [asked.target for asked in world.server.asked] == ["/acme/acme.com"]


async def test_a_name_of_a_private_network_is_refused_when_a_provider_is_written(settings: Settings) -> None:
    async with world_of(settings, outbound_private_hosts=frozenset()) as world:
        request = {"url": "http://localhost:8080/{domain}"}
        document = {"title": "T", "request": request, "map": {"industry": "response.a"}}
        answer = await world.put("enrichment/providers/p", document)
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/request/url"), answer.text


FAULTS: tuple[tuple[dict[str, Any], str, int | None], ...] = (
    ({"when": "lead.nope == 1"}, "/when", 6),
    ({"when": "1 +"}, "/when", 4),
    ({"map": {"industry": "response.a +"}}, "/map/industry", 13),
    ({"map": {"nope": "response.a"}}, "/map/nope", None),
    ({"map": {"email": "response.a"}}, "/map/email", None),
    ({"map": {}}, "/map", None),
    ({"confidence": 1.5}, "/confidence", None),
    ({"confidence": "nope"}, "/confidence", 1),
    ({"policy": {"company": "overwrite"}}, "/policy/company", None),
    ({"policy": {"industry": "maybe"}}, "/policy/industry", None),
    ({"stop_when": ["nope"]}, "/stop_when/0", None),
    ({"request": {"url": "https://a.com/{nope}"}}, "/request/url", 15),
    ({"request": {"url": "https://a.com", "headers": {"Authorization": "x"}}}, "/request/headers/Authorization", None),
    ({"request": {"url": "https://a.com", "headers": {"x": "a\r\nb: c"}}}, "/request/headers/x", None),
    ({"request": {"url": "https://a.com", "body": {"a": 1}}}, "/request/body", None),
    ({"auth": {"type": "header"}}, "/auth", None),
    ({"cache": {"key": "{nope}"}}, "/cache/key", 1),
    ({"rate": {}}, "/rate", None),
    ({"budget": {"per_day": 0}}, "/budget/per_day", None),
    ({"timeout_s": 300}, "/timeout_s", None),
    ({"breaker": {"failures": "3"}}, "/breaker/failures", None),
    ({"extra": 1}, "/extra", None),
    ({"title": "\u0000"}, "/title", None),
)


@pytest.mark.parametrize(("changes", "pointer", "column"), FAULTS, ids=lambda value: str(value)[:40])
async def test_a_document_that_cannot_work_is_refused_with_the_place(
    settings: Settings, changes: dict[str, Any], pointer: str, column: int | None
) -> None:
    async with world_of(settings) as world:
        document = {"title": "T", "request": {"url": "https://a.com"}, "map": {"industry": "response.a"}, **changes}
        answer = await world.put("enrichment/providers/p", document)
        assert answer.status_code == 422, answer.text
        (fault,) = [each for each in answer.json()["errors"] if each["pointer"].startswith(pointer)][:1]
        assert (fault["pointer"].startswith(pointer), fault.get("column")) == (True, column)
        assert (await world.get("enrichment/providers")).json()["items"] == []


async def test_versions_of_a_provider_are_kept_and_can_be_gone_back_to(settings: Settings) -> None:
    async with world_of(settings) as world:
        await world.provider(title="One")
        await world.provider(title="Two", active=False)
        assert (await world.get("enrichment/providers/acme")).json()["document"]["title"] == "Two"
        back = await world.post("enrichment/providers/acme:activate", {"version": 1})
        assert (back.status_code, back.json()["document"]["title"], back.json()["version"]) == (200, "One", 1)
        versions = (await world.get("enrichment/providers/acme/versions", limit="1")).json()
        assert ([each["version"] for each in versions["items"]], versions["next_cursor"] is not None) == ([2], True)
        lead = await world.lead(email=ANN)
        await world.turn()
        assert (await world.run_of(lead["lead_id"]))["version"] == 1
        for path in ("enrichment/providers/nope", "enrichment/providers/nope/versions"):
            assert (await world.get(path)).status_code == 404
        assert (await world.post("enrichment/providers/nope:test", {"lead": {}})).status_code == 404
        assert (await world.post("enrichment/providers/acme:activate", {"version": 9})).status_code == 404
        assert (await world.put("enrichment/providers/nope/credential", {"credential": "x"})).status_code == 404
        assert (await world.put("enrichment/providers/No!", {})).status_code == 422


async def test_a_try_shows_everything_and_keeps_nothing(settings: Settings) -> None:
    async with world_of(settings) as world:
        await world.provider(map={"industry": "response.company.industry", "employees": "response.company.country"})
        lead = await world.lead(email=ANN, industry="Toys")
        shown = (await world.post("enrichment/providers/acme:test", {"lead_id": lead["lead_id"]})).json()
        assert (shown["status"], shown["response"], shown["wanted"]) == (200, ACME, ["employees"])
        assert (shown["values"], shown["wins"]) == ({"industry": "Robots"}, {})
        assert shown["problems"] == {"employees": "is not a whole number"}
        assert shown["request"]["url"].endswith("/acme/acme.com")
        assert (await world.get(f"leads/{lead['lead_id']}")).json()["revision"] == 1
        none = (await world.post("enrichment/providers/acme:test", {"lead": {"email": "x@gmail.com"}})).json()
        assert (none["asked"], none["detail"]) == (False, "the lead has no domain")
        assert (await world.get("enrichment/providers/acme")).json()["today"]["calls"] == 1
        assert (await world.post("enrichment/providers/acme:test", {})).status_code == 422


async def test_what_follows_is_told_to_rules_and_shown_with_its_source(settings: Settings) -> None:
    async with world_of(settings) as world:
        lead = await world.lead(
            email=ANN, phone="+493012345678", first_name="NORA", last_name="MCDONALD-VAN DER BERG", title="VP Sales"
        )
        assert (lead["first_name"], lead["last_name"], lead["country"]) == ("Nora", "McDonald-van der Berg", "DE")
        assert (lead["attributes"], lead["derived"]["time_zone"]) == ({}, "Europe/Berlin")
        assert (lead["derived"]["seniority"], lead["derived"]["company_domain"]) == ("vp", "acme.com")
        (told,) = await world.harness.told(LeadCaptured)
        async with world.harness.runtime.database.reading() as connection:
            opened = await world.harness.runtime.keys.open_many(connection, [(LeadId(told.lead_id), told.personal)])
        assert orjson.loads(opened[0] or b"")["attributes"]["department"] == "sales"
        fields = (await world.enriched(lead["lead_id"]))["fields"]
        assert (fields["country"]["origin"], fields["country"]["confidence"]) == ("enrichment:builtin.phone", 0.7)
        claims = {claim["origin"]: claim["value"] for claim in fields["last_name"]["claims"]}
        assert claims == {"enrichment:builtin.names": "McDonald-van der Berg", "api": "MCDONALD-VAN DER BERG"}


async def test_what_follows_can_be_switched_off(settings: Settings) -> None:
    async with world_of(settings, enrichment_off=frozenset({"names", "titles", "phone"})) as world:
        lead = await world.lead(email=ANN, phone="+493012345678", first_name="NORA", title="VP Sales")
        assert (lead["first_name"], lead["country"]) == ("NORA", None)
        assert set(lead["derived"]) == {"free_mail", "disposable_mail", "company_domain"}


async def test_without_providers_nothing_is_written_down(settings: Settings) -> None:
    async with world_of(settings) as world:
        await world.lead(email=ANN)
        assert await world.rows("SELECT 1 FROM enrichments") == []
