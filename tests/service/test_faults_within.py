"""A document that is tried is told its faults by where they are in what was sent: below `/document`."""

from typing import Any

import pytest

from shared.settings import Settings
from shared.testing import harness
from throughline.services import service_code

PIPELINE = {"stages": [{"id": "one", "probability": 10, "exit": "deal.nothing > 1"}]}
ENGAGEMENT = {"engagement": {"rules": [{"id": "a", "when": "event.typ == 'x'", "points": 5}]}}
SEQUENCE = {"name": "mine", "trigger": "event.typ == 'x'", "steps": []}
MODEL = {"base": "linear", "rules": [{"when": "touch.no", "multiply": 2}]}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "scoring": ("/v1/rules:simulate", {}, ENGAGEMENT),
    "scoring by shape": ("/v1/rules:simulate", {}, {"stages": [{"stage": "mql"}]}),
    "routing": ("/v1/rules:simulate", {}, {"route_when": "lead.nothing == 1"}),
    "routing by shape": ("/v1/rules:simulate", {}, {"rules": 1}),
    "routing of one": ("/v1/rules:preview", {"lead": {}}, {"route_when": "lead.nothing == 1"}),
    "routing of deals": ("/v1/pipelines/default:simulate", {}, PIPELINE),
    "attribution": ("/v1/channel-groupings:simulate", {}, {"rules": 1}),
    "attribution of one": ("/v1/channel-groupings:preview", {"touch": {"type": "page_view"}}, {"rules": 1}),
    "attribution of models": ("/v1/models/mine:simulate", {}, MODEL),
    "nurture": ("/v1/sequences/mine:simulate", {"person": {}}, SEQUENCE),
}


@pytest.mark.parametrize("case", CASES)
async def test_the_faults_of_a_document_begin_where_it_was_sent(settings: Settings, case: str) -> None:
    path, beside, document = CASES[case]
    asked: dict[str, Any] = {**beside, "document": document}
    async with harness(service_code(case.partition(" ")[0]), settings) as service:
        answer = await service.client.post(path, json=asked)
    assert answer.status_code == 422, answer.text
    told = answer.json()
    assert told["errors"], told
    assert all(fault["pointer"].startswith("/document/") for fault in told["errors"]), told
    if told["detail"].startswith("look at"):
        assert told["detail"].startswith("look at /document/")
