"""What sequences ask of other services is done once: a rep is found and told, a webhook signed, a lead changed."""

from datetime import timedelta
from typing import Any

import orjson

from services.routing.notifications.handlers import Notifier
from services.routing.parts import make_parts
from services.routing.settings import RoutingSettings
from services.routing.webhooks.handlers import Deliverer
from shared.clock import SystemClock
from shared.events import (
    AssignmentRequested,
    LeadCaptured,
    LeadMerged,
    LeadUpdateRequested,
    PersonKeyCreated,
    RepNoticeRequested,
    StepRequest,
    WebhookRequested,
)
from shared.ids import EventId, LeadId, SequenceId
from shared.service import Runtime
from shared.settings import Settings
from shared.testing import harness, make_settings
from tests.service.local_server import LocalServer, serving
from tests.service.nurture_world import open_inbox
from tests.service.routing_support import NOON, captured, lead_id, routing_service
from throughline.services import service_code


async def asked(runtime: Runtime, kind: type[StepRequest], lead: LeadId, personal: Any = None, **more: Any) -> Any:
    """A request, sealed with the person's key if it has something to say of them."""
    head: dict[str, Any] = {"event_id": EventId(f"{kind.__name__}-1"), "lead_id": lead, "run": 1, "visit": 1}
    head |= {"enrolment_id": "e", "sequence_id": SequenceId("s"), "sequence_version": 1, "step_id": "x", **more}
    head |= {name: more.get(name, NOON) for name in ("occurred_at", "received_at")}
    if personal is not None:
        async with runtime.database.transaction() as tx:
            (head["personal"],) = (
                await runtime.keys.seal_known(tx.connection, {lead: orjson.dumps(personal)})
            ).values()
    return kind(**head)


async def test_routing_finds_a_rep_tells_them_and_calls_the_endpoint_once(database_url: str) -> None:
    server, lead = LocalServer(), lead_id("one")
    async with open_inbox() as inbox, serving(server) as address:
        here = frozenset({"127.0.0.1"})
        settings = make_settings(database_url, outbound_private_hosts=here, smtp_url=inbox.url)
        async with routing_service(settings) as routing:
            runtime = routing.service.consumer_runtime
            async with runtime.database.transaction() as tx:
                _, (created,) = await runtime.keys.ciphers(tx.connection, [lead], NOON)
                assert isinstance(created, PersonKeyCreated)
                await runtime.keys.fold_keys(tx.connection, [(lead, created)])
            rep_id = await routing.hire("ann")
            await routing.put_rules()
            endpoint = (await routing.client.post("/v1/webhooks", json={"url": address})).json()
            rep = await asked(runtime, AssignmentRequested, lead, reason="asked for")
            said = {"to": "owner", "subject": "Call One", "text": "One looked again."}
            notice = await asked(runtime, RepNoticeRequested, lead, said)
            told = {"lead": {"email": "one@example.com"}}
            hook = await asked(runtime, WebhookRequested, lead, told, endpoint_id=endpoint["endpoint_id"])
            lost = await asked(
                runtime, WebhookRequested, lead, told, endpoint_id="none", event_id=EventId("to-no-endpoint")
            )
            await routing.service.deliver(captured("one"))
            for _ in range(2):
                await routing.service.deliver(rep, notice, hook, lost)
            assert await routing.owner("one") == rep_id
            parts = make_parts(runtime)
            routing.clock.move(timedelta(seconds=1))
            await Notifier(parts, RoutingSettings()).run()
            await Deliverer(runtime).run()
            assert await routing.service.parked() == []
    subjects = inbox.subjects("ann@sales.example.com")
    assert sorted(subjects) == ["A new lead is yours", "Call One"]
    (call,) = server.asked
    assert call.headers["webhook-id"] == hook.event_id
    assert call.headers["webhook-signature"].startswith("v1,")
    body = orjson.loads(call.body)
    assert (body["type"], body["data"]["step_id"], body["data"]["lead"]) == (
        "throughline.sequence.step_reached",
        "x",
        {"email": "one@example.com"},
    )


async def test_capture_says_of_a_lead_what_a_step_says_and_later_words_win(settings: Settings) -> None:
    async with harness(service_code("capture"), settings) as capture:
        made = await capture.client.post("/v1/leads", json={"email": "jo@example.com", "use_case": "none"})
        lead = LeadId(made.json()["lead_id"])
        at = SystemClock().now()
        fields = {"fields": {"use_case": "trial", "country": "de", "attributes.plan": "pro"}}
        runtime = capture.consumer_runtime
        told = await asked(runtime, LeadUpdateRequested, lead, fields, occurred_at=at, received_at=at)
        before = len(await capture.told(LeadCaptured))
        await capture.deliver(told)
        await capture.deliver(told)
        late = at - timedelta(days=1)
        old = {"fields": {"use_case": "older"}}
        late_event = EventId("late")
        await capture.deliver(
            await asked(runtime, LeadUpdateRequested, lead, old, occurred_at=late, received_at=at, event_id=late_event)
        )
        known = (await capture.client.get(f"/v1/leads/{lead}")).json()
        assert (known["use_case"], known["country"], known["attributes"]) == ("trial", "DE", {"plan": "pro"})
        assert len(await capture.told(LeadCaptured)) == before + 1


async def test_f31_what_is_parked_of_a_lead_that_is_merged_is_said_of_the_survivor_once_it_is_carried_out(
    settings: Settings,
) -> None:
    async with harness(service_code("capture"), settings) as capture:

        async def lead(**fields: str) -> LeadId:
            return LeadId((await capture.client.post("/v1/leads", json=fields)).json()["lead_id"])

        jo, other = await lead(email="jo@example.com", use_case="none"), await lead(external_id="crm-7")
        runtime, at = capture.consumer_runtime, SystemClock().now()

        async def says(number: int, fields: dict[str, str]) -> LeadUpdateRequested:
            request: LeadUpdateRequested = await asked(
                runtime,
                LeadUpdateRequested,
                other,
                {"fields": fields},
                occurred_at=at,
                received_at=at,
                event_id=EventId(f"update-{number}"),
            )
            return request

        broken = (await says(1, {})).model_copy(update={"personal": "AAAA"})
        before, after = await says(2, {"use_case": "trial"}), await says(3, {"country": "at"})
        await capture.deliver(broken)
        await capture.deliver(before)
        merged = [await lead(email="jo@example.com", external_id="crm-7") for _ in range(2)]
        assert merged[0] == merged[1]
        await capture.deliver(*await capture.told(LeadMerged), after)
        assert [row["event_id"] for row in await capture.parked()] == [
            each.event_id for each in (broken, before, after)
        ]
        assert await capture.discard_parked(broken)
        assert await capture.parked() == []
        for known in (jo, other):
            profile = (await capture.client.get(f"/v1/leads/{known}")).json()
            assert (profile["lead_id"], profile["use_case"], profile["country"]) == (merged[0], "trial", "AT")
