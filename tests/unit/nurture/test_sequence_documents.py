"""A sequence that cannot work is refused with the place of every fault."""

from typing import Any

import pytest
from pydantic import ValidationError

from services.nurture.sequences.catalogue import WELCOME, shipped
from services.nurture.sequences.document import END, SequenceDocument
from services.nurture.sequences.domain import BranchStep, Plan, SendStep, WaitStep, compile_plan
from shared.errors import FieldError
from shared.ids import SequenceId
from shared.rules import InvalidDocument

SEND = {"channel": "email", "template": {"subject": "Hello", "text": "Hello there"}}


def document(*steps: dict[str, Any], **fields: Any) -> SequenceDocument:
    """A sequence that is fine but for what the test says."""
    whole = {"name": "Test", "trigger": "event.type == 'form_submitted'", "steps": list(steps), **fields}
    return SequenceDocument.model_validate(whole)


def plan_of(*steps: dict[str, Any], **fields: Any) -> Plan:
    return compile_plan(SequenceId("test"), 1, document(*steps, **fields))


def faults_of(*steps: dict[str, Any], **fields: Any) -> tuple[FieldError, ...]:
    with pytest.raises(InvalidDocument) as refused:
        plan_of(*steps, **fields)
    return refused.value.errors


def test_the_shipped_welcome_sequence_is_valid_and_active() -> None:
    plan = compile_plan(WELCOME, 1, SequenceDocument.model_validate(shipped("welcome")))
    assert plan.active
    assert [type(step) for step in plan.steps.values()] == [SendStep, WaitStep, SendStep]
    assert plan.goal is not None
    assert plan.exit is not None


def test_steps_follow_each_other_as_written_unless_told_otherwise() -> None:
    plan = plan_of(
        {"id": "first", "send": SEND, "next": "choose"},
        {"id": "later", "wait": {"days": 2}},
        {"id": "choose", "branch": [{"when": "lead.country == 'DE'", "to": "later"}], "else": "end"},
    )
    first, later, choose = plan.steps["first"], plan.steps["later"], plan.steps["choose"]
    assert isinstance(first, SendStep) and first.then == "choose"
    assert isinstance(later, WaitStep) and later.then == "choose"
    assert isinstance(choose, BranchStep) and choose.then == END


def test_unknown_steps_are_named_with_their_place() -> None:
    faults = faults_of(
        {"id": "a", "send": SEND, "next": "nowhere"},
        {"id": "b", "branch": [{"when": "stage == 'mql'", "to": "gone"}], "else": "lost"},
    )
    assert {(fault.pointer, fault.detail) for fault in faults} == {
        ("/steps/0/next", "there is no step nowhere"),
        ("/steps/1/branch/0/to", "there is no step gone"),
        ("/steps/1/else", "there is no step lost"),
    }


def test_a_step_that_nothing_leads_to_is_refused() -> None:
    faults = faults_of({"id": "a", "send": SEND, "next": "c"}, {"id": "b", "send": SEND}, {"id": "c", "send": SEND})
    assert [(fault.pointer, fault.detail) for fault in faults] == [("/steps/1", "no step leads to b")]


def test_a_loop_without_a_wait_is_refused_and_one_with_a_wait_is_not() -> None:
    again = {"id": "again", "branch": [{"when": "stage == 'lead'", "to": "hello"}], "else": "end"}
    faults = faults_of({"id": "hello", "send": SEND}, again)
    assert [fault.pointer for fault in faults] == ["/steps/0", "/steps/1"]
    assert "loop" in faults[0].detail
    faults_of({"id": "hello", "send": SEND}, {"id": "rest", "wait": {"days": 0}}, again)
    assert len(plan_of({"id": "hello", "send": SEND}, {"id": "rest", "wait": {"days": 7}}, again).steps) == 3


def test_an_id_twice_and_a_reserved_id_are_refused() -> None:
    faults = faults_of({"id": "a", "send": SEND}, {"id": "a", "send": SEND}, {"id": "end", "send": SEND})
    assert [fault.pointer for fault in faults] == ["/steps/1/id", "/steps/2/id"]


@pytest.mark.parametrize(
    ("place", "expression", "column"),
    [
        ("/trigger", "event.type == 'x' && lead.contry == 'DE'", 27),
        ("/exit", "event.type = 'x'", 12),
        ("/goal", "vent.type == 'x'", 1),
    ],
)
def test_an_expression_that_cannot_work_is_refused_at_its_column(place: str, expression: str, column: int) -> None:
    faults = faults_of({"id": "a", "send": SEND}, **{place.removeprefix("/"): expression})
    assert [(fault.pointer, fault.column) for fault in faults] == [(place, column)]


def test_a_branch_knows_the_person_and_no_event() -> None:
    (fault,) = faults_of({"id": "a", "branch": [{"when": "event.type == 'x'", "to": "b"}]}, {"id": "b", "send": SEND})
    assert fault.pointer == "/steps/0/branch/0/when"


def test_a_template_that_cannot_be_filled_is_refused_with_its_line() -> None:
    template = {"subject": "Hi {{ lead.frist_name }}", "html": "<p>\n{{ lead.first_name", "text": "{{ 'x'.upper() }}"}
    faults = faults_of({"id": "a", "send": {"channel": "email", "template": template}})
    assert [fault.pointer for fault in faults] == [
        "/steps/0/send/template/subject",
        "/steps/0/send/template/html",
        "/steps/0/send/template/text",
    ]
    assert "lead.frist_name" in faults[0].detail
    assert faults[1].detail.startswith("line 2")


@pytest.mark.parametrize(
    ("channel", "template", "places"),
    [
        ("email", {"text": "Hello"}, ["subject"]),
        ("sms", {"text": "Hello {{ lead.first_name }}"}, []),
        ("sms", {"subject": "Hello", "html": "Hello"}, ["html", "subject", "text"]),
        ("sms", {"text": "Hello", "name": "hello", "language": "en_US"}, ["name"]),
        ("whatsapp", {"text": "Hello"}, []),
        ("whatsapp", {"name": "hello", "language": "en_US", "parameters": ["{{ lead.first_name }}"]}, []),
        ("whatsapp", {"name": "hello", "language": "en", "parameters": ["{{ lead.nick }}"]}, ["parameters/0"]),
        ("whatsapp", {"name": "hello", "language": "en", "text": "Hello"}, ["text"]),
    ],
)
def test_a_template_has_what_its_channel_can_carry(channel: str, template: dict[str, Any], places: list[str]) -> None:
    written = {"id": "a", "send": {"channel": channel, "template": template}}
    expected = [f"/steps/0/send/template/{place}" for place in places]
    assert [fault.pointer for fault in (faults_of(written) if places else [])] == expected
    if not places:
        stored = document(written).as_json()["steps"][0]["send"]["template"]
        assert template.items() <= stored.items()


@pytest.mark.parametrize(
    ("step", "place"),
    [
        ({"id": "a"}, ("steps", 0)),
        ({"id": "a", "send": SEND, "wait": {"days": 1}}, ("steps", 0)),
        ({"id": "A b", "send": SEND}, ("steps", 0, "id")),
        ({"id": "a", "send": SEND | {"channel": "pigeon"}}, ("steps", 0, "send", "channel")),
        ({"id": "a", "send": {"channel": "email", "template": {"subject": "x"}}}, ("steps", 0, "send", "template")),
        ({"id": "a", "wait": {"weeks": 1}}, ("steps", 0, "wait", "weeks")),
        ({"id": "a", "wait": {"days": "1"}}, ("steps", 0, "wait", "days")),
        ({"id": "a", "wait": {"days": -1}}, ("steps", 0, "wait", "days")),
        ({"id": "a", "send": SEND, "else": "a"}, ("steps", 0)),
    ],
)
def test_a_step_of_another_shape_is_refused_at_its_place(step: dict[str, Any], place: tuple[str | int, ...]) -> None:
    with pytest.raises(ValidationError) as refused:
        document(step)
    assert place in [error["loc"] for error in refused.value.errors()]


def test_a_stored_document_reads_back_as_the_same_plan() -> None:
    written = document({"id": "a", "send": SEND}, {"id": "b", "wait": {"hours": 1}, "next": "end"}, reentry={"days": 3})
    assert SequenceDocument.model_validate(written.as_json()) == written
