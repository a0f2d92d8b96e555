"""What stands in clear of a person in the database: every column of every table is looked through."""

from shared.settings import Settings
from tests.service.company import company
from tests.service.personal_marks import COMPANY, MARKS, MONEY, columns_with, live

_FOUND_BY = "an account is found by it, or by a part of it"
_RULES = "rules see it, and it travels in clear"
OF_COMPANIES = {
    "capture.accounts.name": "the account that was made of it",
    "capture.accounts.name_key": _FOUND_BY,
    "capture.lead_accounts.name_key": _FOUND_BY,
    "capture.rematches.key": _FOUND_BY,
    "capture.event_log.value": "the facts, as they go to Kafka",
    "routing.assignments.company": "who has a lead of the company gets the next one",
    "routing.assignments.inputs": _RULES,
    "routing_projection.accounts.name": _RULES,
    "routing_projection.profiles.fields": _RULES,
    "scoring_projection.profiles.fields": _RULES,
    "scoring_projection.past_profiles.fields": _RULES,
    "scoring_projection.scores.lead": _RULES,
    "nurture_projection.profiles.fields": _RULES,
}
"""Where the company that somebody is of stands in clear, and why. It is not taken for personal, in facts neither."""
AS_BEFORE = {
    "capture": """
        UPDATE leads SET sealed = NULL, statements = jsonb_build_object(
            'email', jsonb_build_array('qzold@example.com', '2026-01-01T00:00:00+00:00', 'api'),
            'first_name', jsonb_build_array('Qzold', '2026-01-01T00:00:00+00:00')
        )
    """,
    "routing": """
        UPDATE deals SET sealed = NULL, name = 'qzold', reason = 'qzold', opened_with = '{"name": "qzold"}';
        UPDATE assignments SET sealed = NULL, sealed_for = NULL,
            inputs = '{"lead": {"email": "qzold", "country": "GB"}}';
    """,
}
"""How versions that did not seal left what they knew."""


async def test_nothing_personal_stands_in_clear_in_any_column(settings: Settings) -> None:
    url = settings.database_url.get_secret_value()
    async with company(settings) as everybody:
        await live(everybody, settings)
        assert await columns_with(url, MARKS) == {}
        assert (await columns_with(url, COMPANY)).keys() == OF_COMPANIES.keys()


async def test_what_an_earlier_version_kept_in_clear_is_sealed(settings: Settings) -> None:
    url = settings.database_url.get_secret_value()
    async with company(settings) as everybody:
        capture, routing = everybody.capture, everybody.services["routing"]
        rep = {"name": "Rep", "email": "rep@acme.example", "time_zone": "UTC"}
        assert (await routing.client.post("/v1/reps", json=rep)).status_code == 201
        lead = await capture.lead(email="ann@example.com", touch={"type": "demo_requested"}, country="GB")
        await everybody.settle()
        await capture.post("touches", {"email": "ann@example.com", "type": "demo_requested"})
        await everybody.settle()
        deal = {"lead_id": lead["lead_id"], "name": "A deal", **MONEY}
        deal_id = (await routing.client.post("/v1/deals", json=deal)).json()["deal_id"]
        for name, statements in AS_BEFORE.items():
            async with everybody.services[name].runtime.database.reading() as connection:
                await connection.execute(statements)
        old = {"what was known": "qzold"}
        columns = {
            "capture.leads.statements",
            "routing.deals.name",
            "routing.deals.reason",
            "routing.deals.opened_with",
        }
        assert (await columns_with(url, old)).keys() == columns | {"routing.assignments.inputs"}
        shown = (await capture.get(f"leads/{lead['lead_id']}")).json()
        for name in ("capture", "routing"):
            await everybody.services[name].run_timers()
        assert await columns_with(url, old) == {}
        assert (await capture.get(f"leads/{lead['lead_id']}")).json() == shown and shown["first_name"] == "Qzold"
        assert (await routing.client.get(f"/v1/deals/{deal_id}")).json()["name"] == "qzold"
        assignment = (await routing.client.get(f"/v1/leads/{lead['lead_id']}/assignment")).json()
        assert assignment["inputs"] == {"lead": {"email": "qzold", "country": "GB"}}
