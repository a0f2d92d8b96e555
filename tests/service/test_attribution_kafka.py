"""Facts through a real relay, Kafka and consumer; and the projection built anew beside the one that serves."""

import pytest

from services.attribution.credits import crediting
from services.attribution.debts import handlers as debts
from shared.service import rebuild
from shared.settings import Settings
from shared.testing import eventually, harness
from tests.service.attribution_facts import Teller
from tests.service.attribution_random import random_history
from tests.service.test_attribution_histories import expected_credits, stored_credits
from throughline.services import service_code


async def test_facts_from_kafka_are_credited_and_a_rebuild_comes_to_the_same(
    kafka_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So little fits in a batch that some of it is owed, as it is of persons with a great many touches.
    monkeypatch.setattr(crediting, "AT_ONCE", 20)
    monkeypatch.setattr(debts, "PIECE", 20)
    teller = Teller()
    facts = [fact for seed in range(400, 403) for fact in random_history(seed)]
    facts += [teller.touch("nora", 3), teller.conversion("nora", 1, 1_000)]
    code = service_code("attribution")
    async with harness(code, kafka_settings, kafka=True) as service:
        async with service.runtime.database.transaction() as tx:
            tx.emit(*facts)

        async def all_is_credited() -> None:
            assert await stored_credits(service) == await expected_credits(service, facts)

        await eventually(all_is_credited, within=90)

        assert await service.parked() == []
        equal = await rebuild(code, kafka_settings, lambda _line: None)
        assert set(equal.values()) == {True}, equal
        await all_is_credited()
        assert (await service.client.get(f"/v1/leads/{teller.lead('nora')}/journey")).status_code == 200
