"""Which word about consent counts, and what it allows."""

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.consents import CHANNELS, Consent, Standing, latest_consents, marketing_words, permission
from shared.events import ConsentChannel

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def word(state: Standing, hour: float = 0, purpose: str = "marketing", channel: ConsentChannel = "email") -> Consent:
    return Consent(channel, state, NOON + timedelta(hours=hour), purpose)


def allowed(*words: Consent, purpose: str = "marketing", channel: ConsentChannel = "email") -> bool:
    return permission(latest_consents(words), channel, purpose).allowed


@given(st.permutations([word("granted"), word("denied", 1), word("granted", 1), word("granted", -1)]))
def test_of_two_words_at_one_moment_the_refusal_counts_in_every_order(said: list[Consent]) -> None:
    assert marketing_words(latest_consents(said)) == {"email": "denied"}


WORDS = st.builds(
    word,
    st.sampled_from(get_args(Standing)),
    st.integers(0, 3),
    st.sampled_from(["marketing", "newsletter", "all", "transactional"]),
)


@given(st.lists(WORDS, max_size=5))
def test_what_counts_does_not_depend_on_the_order_of_words(said: list[Consent]) -> None:
    found = {tuple(sorted(latest_consents(order).items())) for order in permutations(said)}
    assert len(found) == 1


@given(st.lists(WORDS, max_size=5))
def test_what_counts_can_be_folded_from_parts_that_hold_no_question(said: list[Consent]) -> None:
    decisive = [each for each in said if each.state != "pending"]
    in_parts = latest_consents([*latest_consents(decisive[:2]).values(), *latest_consents(decisive[2:]).values()])
    assert in_parts == latest_consents(decisive)


def test_being_asked_grants_nothing_and_takes_no_grant_back() -> None:
    assert marketing_words(latest_consents([word("pending")])) == {"email": "pending"}
    assert not allowed(word("pending"))
    assert allowed(word("pending"), word("granted", 1))
    assert allowed(word("granted"), word("pending", 1))
    assert not allowed(word("denied"), word("pending", 1))
    assert not allowed(word("granted"), word("denied", 1), word("pending", 2))


@pytest.mark.parametrize("channel", CHANNELS)
def test_marketing_needs_a_grant_and_a_transactional_message_only_that_nobody_refuses(channel: ConsentChannel) -> None:
    assert not allowed(channel=channel)
    assert allowed(word("granted", channel=channel), channel=channel)
    assert allowed(channel=channel, purpose="transactional")
    assert allowed(word("denied", channel=channel), channel=channel, purpose="transactional")
    refused = word("denied", purpose="transactional", channel=channel)
    assert not allowed(refused, channel=channel, purpose="transactional")
    assert not allowed(word("denied", purpose="all", channel=channel), channel=channel, purpose="transactional")


def test_a_kind_of_marketing_follows_marketing_on_email_and_needs_its_own_grant_elsewhere() -> None:
    assert allowed(word("granted"), purpose="newsletter")
    assert not allowed(word("granted"), purpose="profiling")
    assert not allowed(word("granted"), purpose="some_club")
    assert not allowed(word("granted", channel="sms"), purpose="newsletter", channel="sms")
    assert allowed(word("granted", purpose="newsletter", channel="sms"), purpose="newsletter", channel="sms")
    assert not allowed(word("granted"), word("denied", purpose="newsletter"), purpose="newsletter")
    assert allowed(word("granted"), word("denied", purpose="newsletter"))


def test_refusing_marketing_refuses_every_other_purpose_until_it_is_granted_again() -> None:
    granted = word("granted", purpose="newsletter")
    assert not allowed(granted, word("denied", 1), purpose="newsletter")
    assert not allowed(granted, word("denied", 0), purpose="newsletter")
    assert allowed(word("denied", 1), word("granted", 2, "newsletter"), purpose="newsletter")
    assert not allowed(word("granted", 0, "club"), word("denied", 1, "all"), purpose="club")
    assert not allowed(word("granted"), word("denied", 1, "all"))
    assert allowed(word("denied", 1, "all"), word("granted", 2))


def test_a_permission_says_which_word_decided_it() -> None:
    found = permission(latest_consents([word("granted", 1)]), "email", "newsletter")
    assert (found.state, found.since, found.why) == (
        "granted",
        NOON + timedelta(hours=1),
        "consent for email is granted",
    )
    assert permission({}, "sms", "marketing").why == "no consent for sms"
    assert "everything" in permission(latest_consents([word("denied", purpose="all")]), "email", "events").why
