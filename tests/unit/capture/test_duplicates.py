"""How alike two people are: the same whoever is named first, with reasons that add up."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capture.duplicates.domain import SUGGESTED_FROM, compare, keys_of
from services.capture.leads.domain import Profile

ANN: dict[str, Any] = {"first_name": "Ann", "last_name": "Miller", "email": "ann.miller@acme.com", "company": "Acme"}
profiles = st.builds(
    Profile,
    first_name=st.sampled_from([None, "Ann", "Anne", "A", "Bob", "Йван", "李"]),
    last_name=st.sampled_from([None, "Miller", "Müller", "Mueller", "O'Neil", "Smith"]),
    email=st.sampled_from([None, "ann@gmail.com", "ann.miller@acme.com", "info@acme.com", "annmiller@web.de"]),
    phone=st.sampled_from([None, "+4915112345678", "+15551234567"]),
    company=st.sampled_from([None, "Acme GmbH", "ACME", "Globex", "n/a"]),
    country=st.sampled_from([None, "DE", "US"]),
)


@given(profiles, profiles)
def test_likeness_is_the_same_from_both_sides_and_the_reasons_add_up(one: Profile, other: Profile) -> None:
    likeness = compare(one, other)
    assert likeness == compare(other, one)
    assert likeness.score == max(0, min(100, sum(reason.points for reason in likeness.reasons)))


@given(profiles, profiles)
def test_whoever_is_suggested_shares_a_key(one: Profile, other: Profile) -> None:
    """Else they would never be compared: what is weighed and what is searched by belong together."""
    if compare(one, other).score > SUGGESTED_FROM + 10:
        assert keys_of(one) & keys_of(other)


@pytest.mark.parametrize(
    ("other", "suggested"),
    [
        ({**ANN, "email": "annmiller@gmail.com"}, True),
        ({**ANN, "email": "a.miller@acme.com", "first_name": "A"}, True),
        ({**ANN, "email": "miller.ann@acme.com", "first_name": "Miller", "last_name": "Ann"}, True),
        ({**ANN, "email": "anne.miller@acme.com", "first_name": "Anne"}, True),
        ({**ANN, "email": "bob.miller@acme.com", "first_name": "Bob"}, False),
        ({**ANN, "email": "xyz@globex.com", "company": "Globex"}, False),
        ({"email": "ann.miller@acme.de"}, True),
        ({"email": "info@acme.com"}, False),
        ({}, False),
    ],
)
def test_who_is_suggested(other: dict[str, Any], suggested: bool) -> None:
    assert (compare(Profile(**ANN), Profile(**other)).score >= SUGGESTED_FROM) is suggested
