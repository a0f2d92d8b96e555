"""A round robin gives everybody what is theirs, never a whole lead early or late, and its books add up."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import gcd

from hypothesis import given, settings
from hypothesis import strategies as st

from services.routing.fairness.domain import LEAD, Account, Entry, added, folded
from services.routing.fairness.turns import Turn, next_turn, settled_turn
from shared.ids import RepId

AT = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
Books = dict[RepId, Account]


@dataclass(frozen=True)
class Standing:
    """A member as a decision finds it."""

    rep_id: RepId
    weight: int
    out: str | None = None
    away: str | None = None
    earns: bool = False


Members = list[Standing]


def reps(weights: Sequence[int]) -> Members:
    return [Standing(RepId(f"rep-{index}"), weight) for index, weight in enumerate(weights)]


def away(member: Standing, why: str = "on leave", *, earns: bool = False) -> Standing:
    return Standing(member.rep_id, member.weight, why, why, earns)


def take(members: Members, books: Books, at: datetime = AT, *, monthly: bool = False) -> tuple[Turn, Books]:
    turn = next_turn(members, books, at, monthly=monthly)
    return turn, folded(books, turn.entries)


def give(members: Members, leads: int, books: Books | None = None) -> list[RepId]:
    """Who gets each of so many leads, in order."""
    held = dict(books or {})
    order = []
    for _ in range(leads):
        turn, held = take(members, held)
        order.append(turn.rep_id)
    return order


def names(order: list[RepId]) -> str:
    return "".join(rep_id.removeprefix("rep-") for rep_id in order)


def test_equal_weights_take_turns_in_order() -> None:
    assert names(give(reps([100, 100, 100]), 7)) == "0120120"


def test_half_a_weight_gets_every_third_lead() -> None:
    assert names(give(reps([100, 50]), 6)) == "010010"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=1, max_size=10))
def test_with_any_weights_nobody_is_ever_a_whole_lead_from_entitlement(weights: list[int]) -> None:
    total, members = sum(weights), reps(weights)
    received: Counter[RepId] = Counter()
    books: Books = {}
    for count in range(1, min(total, 250) + 1):
        turn, books = take(members, books)
        received[turn.rep_id] += 1
        for member in members:
            assert abs(Fraction(count * member.weight, total) - received[member.rep_id]) < 1
            assert abs(books[member.rep_id].balance) < LEAD
            assert books[member.rep_id].received == received[member.rep_id]
        assert sum(account.balance for account in books.values()) == 0


def test_weights_that_make_a_plain_smooth_round_robin_late_are_served_in_time() -> None:
    members = reps([5, 1, 12, 5, 1, 100, 100, 5])
    total = sum(member.weight for member in members)
    received: Counter[RepId] = Counter()
    for count, rep_id in enumerate(give(members, total), start=1):
        received[rep_id] += 1
        assert all(abs(Fraction(count * one.weight, total) - received[one.rep_id]) < 1 for one in members)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_a_whole_cycle_gives_exactly_the_weights(weights: list[int]) -> None:
    cycle = sum(weights) // gcd(*weights)
    received = Counter(give(reps(weights), 2 * cycle))
    assert received == {rep.rep_id: 2 * rep.weight // gcd(*weights) for rep in reps(weights)}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 100), min_size=2, max_size=6), st.integers(0, 50), st.integers(1, 100))
def test_an_absent_member_returns_at_the_level_of_the_others(weights: list[int], before: int, gone: int) -> None:
    everybody = reps(weights)
    first = everybody[0].rep_id
    books: Books = {}
    for present in [everybody] * before + [[away(everybody[0]), *everybody[1:]]] * gone:
        _, books = take(present, books)
    turn, after = take(everybody, books)
    others = [books[one.rep_id].balance for one in everybody[1:]]
    arrival = next(one for one in turn.entries if one.rep_id == first and one.kind in ("returned", "joined"))
    assert abs(books.get(first, Account(AT)).balance + arrival.units - sum(others) // len(others)) <= 1
    received = 0
    for count in range(2, sum(weights) + 2):
        received += turn.rep_id == first
        assert received <= Fraction(count * weights[0], sum(weights)) + 2
        turn, after = take(everybody, after)


def test_a_joiner_starts_level_and_catches_up_nothing() -> None:
    two = reps([100, 100])
    books: Books = {}
    for _ in range(20):
        _, books = take(two, books)
    received = Counter(give([*two, Standing(RepId("rep-new"), 100)], 9, books))
    assert received[RepId("rep-new")] == 3


def test_leads_missed_at_the_own_limit_are_made_up_only_where_the_queue_says_so() -> None:
    for earns, expected in ((False, 3), (True, 5)):
        two = reps([1, 1])
        books: Books = {}
        for _ in range(4):
            _, books = take([away(two[0], "at capacity", earns=earns), two[1]], books)
        assert Counter(give(two, 6, books))[two[0].rep_id] == expected


def test_a_new_month_forgets_whole_leads_and_keeps_the_rest() -> None:
    two = reps([1, 1])
    _, books = take(two, {})
    first, second = (one.rep_id for one in two)
    books = folded(books, [Entry("adjusted", first, AT, 3 * LEAD), Entry("adjusted", second, AT, -2 * LEAD)])
    turn, after = take(two, books, AT + timedelta(days=10), monthly=True)
    forgotten = {one.rep_id: one.units for one in turn.entries if one.kind == "cycle"}
    assert forgotten == {first: -2 * LEAD, second: LEAD}
    assert [after[first].received, after[second].received] == [turn.rep_id == first, turn.rep_id == second]
    assert after[first].since == datetime(2026, 12, 1, tzinfo=UTC)
    again, _ = take(two, after, AT + timedelta(days=11), monthly=True)
    assert [one.kind for one in again.entries] == ["turn"]


def test_a_changed_weight_is_an_entry_and_counts_from_then_on() -> None:
    _, books = take(reps([1, 1]), {})
    turn, books = take(reps([1, 3]), books)
    assert [(one.kind, one.why) for one in turn.entries[:-1]] == [("weight", "from 1 to 3")]
    assert Counter(give(reps([1, 3]), 8, books)) == {RepId("rep-0"): 2, RepId("rep-1"): 6}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from(["here", "on leave", "at capacity"]), min_size=5, max_size=5), max_size=80))
def test_however_members_come_and_go_the_entries_add_up_to_the_balances(presences: list[list[str]]) -> None:
    everybody = reps([97, 89, 83, 79, 73])
    books: Books = {}
    entries: list[Entry] = []
    for presence in presences:
        members = [one if state == "here" else away(one, state) for one, state in zip(everybody, presence, strict=True)]
        if any(member.out is None for member in members):
            turn, books = take(members, books)
            entries += turn.entries
    sums: Counter[RepId] = Counter()
    for entry in entries:
        for rep_id, units in added(entry).items():
            sums[rep_id] += units
    assert {rep_id: account.balance for rep_id, account in books.items()} == dict(sums)
    assert all(abs(account.balance) < 4 * LEAD for account in books.values())
    counted = Counter(rep_id for entry in entries for rep_id in added(entry))
    assert counted == {rep_id: account.entries for rep_id, account in books.items()}


def decide(members: Members, books: Books, gives_back: Sequence[bool]) -> tuple[set[RepId], RepId | None, Books]:
    """A lead offered until somebody keeps it: who passed it by, who has it, and the books; members answer in turn."""
    passed: set[RepId] = set()
    for refused in [*gives_back, False]:
        if len(passed) == len(members):
            return passed, None, books
        running = [replace(one, out="passed it by") if one.rep_id in passed else one for one in members]
        turn, books = take(running, books)
        if not refused:
            return passed, turn.rep_id, books
        books = folded(books, [Entry("rejected", turn.rep_id, AT, LEAD)])
        passed.add(turn.rep_id)
    raise AssertionError("the last one keeps it")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 200), min_size=2, max_size=6), st.integers(1, 200))
def test_who_always_gives_back_moves_nothing_among_the_others(weights: list[int], refusing: int) -> None:
    members = [Standing(RepId("rep-refuses"), refusing), *reps(weights)]
    received: Counter[RepId | None] = Counter()
    books: Books = {}
    for count in range(1, 151):
        ahead = take(members, books)[0].rep_id == members[0].rep_id
        _, rep_id, books = decide(members, books, [ahead])
        received[rep_id] += 1
        for one in members[1:]:
            assert abs(Fraction(count * one.weight, sum(weights)) - received[one.rep_id]) < 2


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.integers(1, 200), min_size=2, max_size=6),
    st.lists(st.lists(st.booleans(), max_size=5), max_size=60),
)
def test_a_lead_given_back_is_all_that_takes_a_balance_beyond_a_lead_and_only_until_it_is_made_up(
    weights: list[int], answers: list[list[bool]]
) -> None:
    members = reps(weights)
    books: Books = {}
    for refusals in answers:
        _, _, books = decide(members, books, refusals)
        assert all(account.balance < 2 * LEAD for account in books.values())
    for place in range(3 * len(members)):
        _, books = take(members, books)
        if place >= len(members):
            assert all(abs(account.balance) < LEAD for account in books.values())


def test_turns_of_an_earlier_version_stay_what_they_were() -> None:
    weights = ((RepId("ann"), 1), (RepId("bob"), 3))
    before = Entry("turn", RepId("ann"), AT, weights=weights, level=LEAD, by_weight=False)
    now = replace(before, by_weight=True)
    assert added(before) == {"ann": LEAD // 4 - LEAD // 2 - LEAD, "bob": 3 * LEAD // 4 - LEAD // 2}
    assert added(now) == {"ann": -LEAD, "bob": 0}


def test_books_settled_for_a_known_rep_equal_the_turn_that_chose_it() -> None:
    members = reps([3, 2, 1])
    _, books = take(members, {})
    weights = tuple((one.rep_id, one.weight) for one in members)
    for _ in range(10):
        turn, after = take(members, books)
        assert folded(books, [settled_turn(weights, books, turn.rep_id, AT)]) == after
        books = after
