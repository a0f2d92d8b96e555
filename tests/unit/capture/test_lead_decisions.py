"""Who a call is about, and what is known: the same whatever came first."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import permutations
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from services.capture.leads.domain import (
    Identifier,
    Person,
    Statement,
    decide,
    learn,
    linked_person,
    one_after_another,
    profile_of,
    ranked,
    strongest,
    survivor_of,
    together,
    why_it_counts,
)
from shared.events import IdentifierKind
from shared.ids import LeadId

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
EMAIL = Identifier("email", LeadId("e"))
PHONE = Identifier("phone", LeadId("p"))
EXTERNAL = Identifier("external", LeadId("x"))
KINDS: tuple[IdentifierKind, ...] = ("email", "phone", "external", "anonymous")


def person(lead_id: str, made_from: IdentifierKind = "email", *emails: str) -> Person:
    return Person(
        LeadId(lead_id), made_from, frozenset({LeadId(lead_id)}), frozenset(LeadId(email) for email in emails)
    )


def test_nobody_known_gets_every_identifier_and_an_id_from_the_strongest() -> None:
    decision = decide([PHONE, EXTERNAL, EMAIL], {})
    assert (decision.survivor, decision.merged) == (None, ())
    assert strongest(decision.attach) == EMAIL


def test_somebody_known_by_one_gains_the_others() -> None:
    known = person("l", "phone")
    decision = decide([EMAIL, PHONE], {PHONE.own_id: known})
    assert (decision.survivor, decision.attach) == (known, (EMAIL,))


def test_two_known_by_different_identifiers_are_one() -> None:
    a, b = person("a", "email", "e"), person("b", "external")
    decision = decide([EMAIL, EXTERNAL], {EMAIL.own_id: a, EXTERNAL.own_id: b})
    assert (decision.survivor, decision.merged, decision.attach) == (a, (b,), ())


def test_a_phone_alone_ties_nobody_with_another_email() -> None:
    ann, ben = person("a", "email", "e"), person("b", "email", "e2")
    tie = decide([EMAIL, PHONE], {EMAIL.own_id: ann, PHONE.own_id: ben})
    assert (tie.survivor, tie.merged, tie.attach) == (ann, (), ())
    new = decide([EMAIL, PHONE], {PHONE.own_id: ben})
    assert (new.survivor, new.attach) == (None, (EMAIL,))


def test_a_phone_ties_those_who_have_no_email_or_the_same() -> None:
    ann = person("a", "email", "e")
    for other in (person("b", "phone"), person("b", "email", "e", "e2")):
        assert decide([EMAIL, PHONE], {EMAIL.own_id: ann, PHONE.own_id: other}).merged == (other,)
    assert decide([PHONE], {PHONE.own_id: ann}).survivor == ann


def test_an_external_id_ties_people_with_different_emails() -> None:
    ann, other = person("a", "email", "e"), person("b", "email", "e2")
    assert decide([EMAIL, EXTERNAL], {EMAIL.own_id: ann, EXTERNAL.own_id: other}).merged == (other,)


def test_calls_of_one_batch_are_about_whom_they_are_about_one_by_one() -> None:
    other = Identifier("email", LeadId("e2"))
    calls = [(EMAIL, PHONE), (other, PHONE), (other, EXTERNAL), (PHONE,)]
    assert one_after_another(calls, {}) == [
        (EMAIL.own_id, (EMAIL, PHONE)),
        (other.own_id, (other,)),  # the phone stays with whom it is known of
        (other.own_id, (EXTERNAL,)),
        (EMAIL.own_id, ()),
    ]


def test_calls_of_one_batch_that_tie_people_together_are_left() -> None:
    other = Identifier("email", LeadId("e2"))
    assert one_after_another([(EMAIL,), (other, EXTERNAL), (EMAIL, EXTERNAL)], {}) is None
    assert one_after_another([(EMAIL,), ()], {}) is None
    ann, ben = person("a", "email", "e"), person("b", "external")
    known = {EMAIL.own_id: ann, EXTERNAL.own_id: ben}
    assert one_after_another([(EMAIL, EXTERNAL)], known) is None
    apart = frozenset({frozenset({LeadId("a"), LeadId("b")})})
    assert one_after_another([(EMAIL, EXTERNAL)], known, apart) == [(LeadId("a"), ())]


def test_people_told_apart_stay_apart() -> None:
    a, b = person("a", "email", "e"), person("b", "external")
    apart = {frozenset({LeadId("a"), LeadId("b")})}
    decision = decide([EMAIL, EXTERNAL], {EMAIL.own_id: a, EXTERNAL.own_id: b}, apart)
    assert (decision.survivor, decision.merged) == (a, ())


@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 20)), min_size=1, max_size=5, unique_by=lambda x: x[1])
)
def test_the_survivor_is_the_same_in_every_order(named: list[tuple[IdentifierKind, int]]) -> None:
    persons = [person(f"l{number}", kind) for kind, number in named]
    assert len({survivor_of(order).lead_id for order in permutations(persons)}) == 1


@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 20)), min_size=2, max_size=6, unique_by=lambda x: x[1]),
    st.randoms(use_true_random=False),
)
def test_the_survivor_is_the_same_however_the_merges_are_grouped(
    named: list[tuple[IdentifierKind, int]], dice: Random
) -> None:
    persons = [person(f"l{number}", kind) for kind, number in named]
    standing = list(persons)
    while len(standing) > 1:
        some = dice.sample(standing, min(len(standing), dice.choice((2, 3))))
        standing = [one for one in standing if one not in some] + [survivor_of(some)]
    assert standing == [survivor_of(persons)]


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["x", "y"]), st.integers(0, 3), st.integers(0, 99)),
        max_size=8,
        unique_by=lambda x: (x[0], x[1]),
    )
)
def test_what_is_shown_to_count_is_what_counts_in_the_profile(told: list[tuple[str, str, int, int]]) -> None:
    rows = [
        (LeadId(row), {name: Statement(value, NOON + timedelta(minutes=minute), "api")})
        for row, name, minute, value in told
    ]
    counted = {name: statements[0][1] for name, statements in ranked(rows).items()}
    merged_rows: dict[LeadId, dict[str, Statement]] = {}
    for lead_id, statements in rows:
        merged_rows.setdefault(lead_id, {}).update(statements)
    assert counted == together(merged_rows.items())
    assert {name: len(every) for name, every in ranked(rows).items()} == Counter(name for _, name, _, _ in told)
    for every in ranked(rows).values():
        assert why_it_counts(every) == ("only" if len(every) == 1 else why_it_counts(every[:2]))


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 9), st.integers(0, 50)), max_size=6, unique_by=lambda x: x[2]
    )
)
def test_statements_come_out_the_same_in_every_order(told: list[tuple[str, int, int]]) -> None:
    calls = [({name: value}, NOON + timedelta(minutes=minute)) for name, value, minute in told]
    results = []
    for order in permutations(calls):
        known: dict[str, Any] = {}
        for said, at in order:
            known = learn(known, said, at, "api")
        results.append(known)
    assert all(result == results[0] for result in results)


@given(st.permutations(range(3)))
def test_rows_of_a_person_come_together_the_same_in_every_order(order: list[int]) -> None:
    rows = [
        ("a", learn({}, {"email": "old", "title": "A"}, NOON, "api")),
        ("b", learn({}, {"email": "new", "company": "B"}, NOON + timedelta(hours=1), "api")),
        ("c", learn({}, {"title": "C"}, NOON, "api")),
    ]
    profile = profile_of(together(rows[index] for index in order))
    assert (profile.email, profile.title, profile.company) == ("new", "A", "B")


def test_a_correction_at_the_same_moment_counts_when_received_last() -> None:
    known = learn(learn({}, {"company": "A"}, NOON, "api"), {"company": "B"}, NOON, "api")
    assert profile_of(known).company == "B"


def test_what_is_taken_back_is_gone_and_what_is_older_does_not_return() -> None:
    known = learn({}, {"attributes.plan": "pro"}, NOON, "api")
    known = learn(known, {"attributes.plan": None}, NOON + timedelta(hours=2), "api")
    known = learn(known, {"attributes.plan": "free"}, NOON + timedelta(hours=1), "api")
    assert profile_of(known).attributes == {}


def test_a_browser_belongs_to_who_was_linked_last_before_else_first() -> None:
    ann, ben = LeadId("ann"), LeadId("ben")
    links = [(NOON + timedelta(hours=2), ben), (NOON, ann)]
    assert linked_person(links, NOON - timedelta(days=1)) == ann
    assert linked_person(links, NOON + timedelta(hours=1)) == ann
    assert linked_person(links, NOON + timedelta(hours=2)) == ben
    assert linked_person([], NOON) is None
