"""What is told about a lead by its id is told by its email address too."""

import pytest

from shared.settings import Settings
from shared.testing import FrozenClock, harness
from tests.service.capture_world import Capture
from tests.service.nurture_world import Facts, make_sender, open_inbox
from tests.service.nurture_world import World as Nurture
from tests.service.scoring_world import GOOD_FIT, NOW
from tests.service.scoring_world import World as Scoring
from throughline.services import service_code

ANN = "ann@example.com"


async def test_capture_tells_fields_consent_duplicates_and_enrichment(settings: Settings) -> None:
    async with harness(service_code("capture"), settings) as made:
        capture = Capture(made)
        first = await capture.lead(email=ANN, first_name="Ann", consent={"email": "granted"})
        for life in range(2):
            for what in ("fields", "consent", "duplicates", "enrichment"):
                by_id = await capture.get(f"leads/{first['lead_id']}/{what}")
                by_email = await capture.get(f"leads:{what}", email="Ann@Example.com")
                assert by_id.status_code == by_email.status_code == 200, by_email.text
                assert by_id.json() == by_email.json(), (life, what)
                nobody = await capture.get(f"leads:{what}", email="bob@example.com")
                assert nobody.status_code == 404, nobody.text
            await capture.post(f"leads/{first['lead_id']}:erase", {})
            gone = await capture.get("leads:consent", email=ANN)
            assert gone.status_code == 404, gone.text
            first = await capture.lead(email=ANN, first_name="Anna")


async def test_scoring_tells_stages_and_decisions(settings: Settings) -> None:
    clock = FrozenClock(NOW)
    async with harness(service_code("scoring"), settings, clock=clock) as made:
        scoring = Scoring(made, clock)
        ann = scoring.lead_id(ANN)
        await scoring.tell(scoring.touch(ann, "demo_requested"), await scoring.captured(ANN, **GOOD_FIT))
        answer = await made.client.post(f"/v1/leads/{ann}:disqualify", json={"reason": "other", "note": "Asked for it"})
        assert answer.status_code == 200, answer.text
        for what in ("stages", "decisions"):
            by_email = await made.client.get(f"/v1/leads:{what}", params={"email": ANN, "limit": 1})
            assert by_email.json() == (await made.client.get(f"/v1/leads/{ann}/{what}?limit=1")).json()
            assert len(by_email.json()["items"]) == 1, what


@pytest.mark.parametrize("path", ["acts", "preferences", "sequences/{}/explain"])
async def test_nurture_tells_acts_preferences_and_who_would_enter(settings: Settings, path: str) -> None:
    async with open_inbox() as inbox, harness(service_code("nurture"), settings) as made:
        nurture = Nurture(made, inbox, Facts(made.runtime), [make_sender(made.consumer_runtime, inbox.url)])
        await nurture.feeds_are_fresh()
        await nurture.arrives(ANN, first_name="Ann", country="DE")
        told = path.format("welcome")
        by_email = await made.client.get(f"/v1/{told}", params={"email": ANN})
        by_id = await made.client.get(f"/v1/leads/{nurture.facts.lead_id(ANN)}/{told}")
        assert by_email.status_code == by_id.status_code == 200, by_email.text
        assert by_email.json() == by_id.json()
        nobody = await made.client.get(f"/v1/{told}", params={"email": "bob@example.com"})
        assert nobody.status_code == 404, nobody.text
