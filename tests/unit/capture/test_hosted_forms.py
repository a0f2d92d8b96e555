"""Hosted forms, decided: answers, languages, patterns, colours, what makes a submission suspicious."""

import hashlib
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from services.capture.forms.document import FormDocument, languages_of, said
from services.capture.forms.domain import (
    Signs,
    context_of,
    fingerprint_of,
    language_for,
    read_answers,
    readable_on,
    suspicions,
    trap_of,
    work_is_done,
)
from services.capture.forms.patterns import matches, pattern_fault
from services.capture.forms.tokens import FormTokens
from services.capture.hosted.words import WORDS, word
from shared.secrets import Secrets

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
FORM_ID = "c1a5d5c2-6a39-4c57-8f0e-7be0a4d2f611"
EMAIL = {"id": "email", "type": "email", "label": "Email"}


def form(*fields: dict[str, Any], **more: Any) -> FormDocument:
    return FormDocument.model_validate({"name": "Test", "fields": [EMAIL, *fields], **more})


def answered(field: dict[str, Any], *given: str) -> tuple[Any, str | None]:
    """What an answer comes to, or the fault."""
    asked = {"id": "asked", "label": "Asked", **field}
    answers = read_answers(form(asked), {"email": ["ann@example.com"], "asked": list(given)})
    return answers.told.get("attributes.asked"), answers.faults.get("asked")


@pytest.mark.parametrize(
    ("field", "given", "value", "fault"),
    [
        ({}, ["  two   words "], "two words", None),
        ({}, ["x" * 501], None, "long"),
        ({"max_length": 3}, ["four"], None, "long"),
        ({"type": "textarea"}, ["a\r\nb "], "a\nb", None),
        ({"type": "number"}, ["12"], 12, None),
        ({"type": "number"}, ["1,5"], 1.5, None),
        ({"type": "number"}, ["1e9"], None, "number"),
        ({"type": "number"}, ["NaN"], None, "number"),
        ({"type": "number"}, ["9" * 16], None, "number"),
        ({"type": "date"}, ["2026-02-29"], None, "date"),
        ({"type": "date"}, ["2028-02-29"], "2028-02-29", None),
        ({"type": "url"}, ["javascript:alert(1)"], None, "url"),
        ({"type": "url"}, ["https://acme.com/a"], "https://acme.com/a", None),
        ({"type": "url"}, ["https://[::1"], None, "url"),
        ({"type": "checkbox"}, ["on"], True, None),
        ({"type": "checkbox"}, [], False, None),
        ({"type": "checkbox", "required": True}, [], None, "agree"),
        ({"required": True}, ["   "], None, "required"),
        ({}, ["a\x00b"], None, "text"),
        ({}, ["\ud800"], None, "text"),
        ({"type": "checkboxes", "options": [{"value": "a"}, {"value": "b"}]}, ["b", "a", "b"], ["b", "a"], None),
        ({"type": "checkboxes", "options": [{"value": "a"}]}, ["a", "z"], None, "choice"),
        ({"type": "radio", "options": [{"value": "a"}]}, ["z"], None, "choice"),
        ({"type": "hidden", "value": "always"}, ["mine"], "always", None),
        ({"type": "hidden"}, ["mine"], "mine", None),
    ],
)
def test_an_answer_is_of_its_type_or_at_fault(
    field: dict[str, Any], given: list[str], value: Any, fault: str | None
) -> None:
    assert answered(field, *given) == (value, fault)


def test_somebody_has_to_say_who_they_are_even_where_no_field_is_required() -> None:
    document = form({"id": "phone", "type": "phone", "label": "Phone"})
    assert read_answers(document, {"email": [""], "phone": [""]}).faults == {"email": "required"}
    assert read_answers(document, {"phone": ["+4915112345678"]}).faults == {}


def test_whole_numbers_of_a_lead_are_whole() -> None:
    document = form({"id": "employees", "type": "number", "label": "Size"})
    given = {"email": ["ann@example.com"], "employees": ["12.5"]}
    assert read_answers(document, given).faults == {"employees": "whole"}
    assert read_answers(document, {**given, "employees": ["12"]}).told["employees"] == 12


@pytest.mark.parametrize("pattern", ["(", "(?=x)", r"(a)\1", "(a{300}){300}", "a{99999}", "[z-a]"])
def test_a_pattern_that_cannot_be_run_is_refused(pattern: str) -> None:
    assert pattern_fault(pattern)


def test_a_pattern_is_about_the_whole_answer_and_takes_no_time_to_speak_of() -> None:
    assert pattern_fault("[0-9]{5}|x") is None
    assert matches("[0-9]{5}|x", "12345")
    assert not matches("[0-9]{5}|x", "12345\n")
    assert not matches("[0-9]{5}|x", "a12345")
    assert not matches("(a+)+", "a" * 5_000 + "!")  # with another engine this would not end


@pytest.mark.parametrize(
    ("asked", "accepted", "language"),
    [
        (None, None, "en"),
        ("de", "fr", "de"),
        (None, "fr;q=0.2, de-AT;q=0.8", "de"),
        (None, "zh,*;q=0.1", "en"),
        ("'><script>", "q=;;;,,", "en"),
        (None, "de;q=x, fr", "fr"),
    ],
)
def test_a_form_speaks_the_language_that_is_asked_for(asked: str | None, accepted: str | None, language: str) -> None:
    document = form(texts={"title": {"en": "Hello", "de": "Hallo", "fr": "Bonjour"}})
    assert languages_of(document) == ("en", "de", "fr")
    assert language_for(document, asked, accepted) == language


def test_a_text_that_is_not_there_is_said_in_the_forms_own_language() -> None:
    assert said({"en": "Hello", "de": "Hallo"}, "fr", "en") == "Hello"
    assert said({"": "Hello"}, "de", "en") == "Hello"
    assert said(None, "de", "en") == ""
    assert word("button", "de-AT") == "Absenden"
    assert word("button", "xx") == "Send"
    assert {frozenset(words) for words in WORDS.values()} == {frozenset(WORDS["en"])}


def test_the_trap_has_a_name_that_the_form_does_not_use() -> None:
    assert trap_of(form()) == "homepage"
    assert trap_of(form({"id": "homepage", "type": "url", "label": "Homepage"})) == "fax_number"


FAST, FAST_WITHOUT = timedelta(seconds=2), timedelta(seconds=4)


@pytest.mark.parametrize(
    ("signs", "found"),
    [
        (Signs(False, timedelta(seconds=3), True), ()),
        (Signs(False, timedelta(seconds=1), True), ("too_fast",)),
        (Signs(False, timedelta(seconds=3), None), ("too_fast",)),
        (Signs(False, timedelta(seconds=5), None), ()),
        (Signs(False, timedelta(seconds=5), None, flooded=True), ("too_many_without_proof",)),
        (Signs(False, timedelta(seconds=5), True, flooded=True), ()),
        (Signs(False, timedelta(seconds=5), False), ("wrong_proof",)),
        (Signs(True, None, None), ("trap_filled_in", "never_shown")),
    ],
)
def test_what_speaks_against_a_person_is_named(signs: Signs, found: tuple[str, ...]) -> None:
    assert suspicions(signs, FAST, FAST_WITHOUT) == found


def test_work_is_done_when_the_hash_begins_with_zeros() -> None:
    digests = ((number, hashlib.sha256(f"token:{number}".encode()).digest()) for number in count())
    answer = next(number for number, digest in digests if digest[0] == 0)
    assert work_is_done("token", str(answer), 8)
    assert not work_is_done("other", str(answer), 8)
    assert not work_is_done("token", str(answer), 60)
    assert work_is_done("token", "1", 0)
    assert not any(work_is_done("token", bad, 0) for bad in ("", "-1", "x", "１", "9" * 21))


def test_a_token_is_good_for_its_form_and_nobody_makes_one() -> None:
    tokens = FormTokens(Secrets("5e" * 32))
    token = tokens.form_token(FORM_ID, 3, NOW)
    read = tokens.read_form_token(FORM_ID, token)
    assert read is not None
    assert (read.version, read.shown_at) == (3, NOW)
    assert tokens.read_form_token("another", token) is None
    assert FormTokens(Secrets("5f" * 32)).read_form_token(FORM_ID, token) is None
    for place in range(len(token)):
        flipped = "A" if token[place] != "A" else "B"
        assert tokens.read_form_token(FORM_ID, token[:place] + flipped + token[place + 1 :]) is None
    assert [tokens.read_form_token(FORM_ID, bad) for bad in ("", "x", "é", token[:-4], token * 2)] == [None] * 5
    assert tokens.read_link_token(token) is None
    assert tokens.read_link_token(tokens.link_token(FORM_ID)) == FORM_ID


def test_a_fingerprint_is_of_the_answers_alone() -> None:
    key = b"k" * 32
    one = fingerprint_of(key, FORM_ID, {"email": ["a"], "_token": ["1"]})
    assert one == fingerprint_of(key, FORM_ID, {"_token": ["2"], "email": ["a"]})
    assert one != fingerprint_of(key, FORM_ID, {"email": ["b"]})
    assert one != fingerprint_of(key, "another", {"email": ["a"]})
    assert one != fingerprint_of(b"x" * 32, FORM_ID, {"email": ["a"]})


def test_a_context_that_cannot_be_one_is_left_out() -> None:
    given = {"_visitor": ["short"], "_url": ["x" * 9_000], "_referrer": ["a\x00"], "_session_url": []}
    context = context_of(given)
    assert (context.anonymous_id, context.referrer, context.session_url) == (None, None, None)
    assert len(context.url or "") == 2_000


@pytest.mark.parametrize(("colour", "on_it"), [("#000000", "#ffffff"), ("#ffffff", "#000000"), ("#ffd400", "#000000")])
def test_a_button_can_be_read_on_any_colour(colour: str, on_it: str) -> None:
    assert readable_on(colour) == on_it
