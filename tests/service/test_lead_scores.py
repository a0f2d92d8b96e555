"""Scores that the scoring document names beside the main one, in the rules of routing and of nurture."""

from datetime import UTC, datetime

from shared.events import LeadScored
from shared.ids import EventId, LeadId
from shared.settings import Settings
from shared.testing import harness
from tests.service.nurture_world import SEQUENCE, Facts, World, make_sender, open_inbox
from tests.service.routing_support import captured, entered, routing_service
from throughline.services import service_code

ANN, BEN = "ann@example.com", "ben@example.com"


def scored(of: LeadId, revision: int, scores: dict[str, float] | None) -> LeadScored:
    """Scores after they changed."""
    at = datetime.now(UTC)
    return LeadScored(
        event_id=EventId(f"scored-{of}-{revision}"),
        lead_id=of,
        occurred_at=at,
        received_at=at,
        revision=revision,
        engagement=10,
        fit=0,
        total=10,
        grade="D",
        stage="mql",
        rules_version=1,
        scores=scores,
    )


async def test_a_routing_rule_reads_a_named_score_as_it_was_at_the_stage_change(settings: Settings) -> None:
    async with routing_service(settings) as routing:
        ann = await routing.hire("ann", skills=["product"])
        await routing.hire("bob")
        rule = {"id": "product", "when": "scores.product >= 20.0", "who": "'product' in rep.skills"}
        await routing.put_rules({**rule, "strategy": "round_robin"})
        hot, cold = entered("hot"), entered("cold")
        earlier = entered("cold", revision=0).model_copy(update={"scores": {"product": 25.0}})
        told = hot.model_copy(update={"scores": {"product": 25.0}})
        await routing.service.deliver(captured("hot"), captured("cold"), told, earlier, cold)
        assert await routing.owner("hot") == ann
        assignment = await routing.assignment("hot")
        assert (assignment["inputs"]["scores"], assignment["trace"][0]["matched"]) == ({"product": 25.0}, True)
        first, _ = (await routing.assignment("cold"))["trace"]
        assert (first["matched"], first["why"]) == (False, "its condition does not hold: scores is missing")


async def test_a_branch_of_a_sequence_reads_a_named_score(settings: Settings) -> None:
    async with open_inbox() as inbox, harness(service_code("nurture"), settings) as nurture:
        world = World(nurture, inbox, Facts(nurture.runtime), [make_sender(nurture.consumer_runtime, inbox.url)])
        await world.feeds_are_fresh()
        hot, other = (
            {"id": name, "send": {"channel": "email", "template": {"subject": name, "text": "-"}}, "next": "end"}
            for name in ("hot", "other")
        )
        choose = {"id": "choose", "branch": [{"when": "scores.product >= 20.0", "to": "hot"}], "else": "other"}
        await world.saves(SEQUENCE, steps=[choose, hot, other])
        await world.tell(scored(world.facts.lead_id(ANN), 1, {"product": 25.0}))
        for email in (ANN, BEN):
            await world.arrives(email)
        await world.send()
        assert "hot" in inbox.subjects(ANN)
        assert "other" in inbox.subjects(BEN)
