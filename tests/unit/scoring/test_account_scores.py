"""What people come to as an account, and that nobody misses when decay changes it."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from random import Random

import pytest

from services.scoring.accounts.domain import AccountRules, AccountScore, Member, account_score, next_look
from services.scoring.engagement.decay import Decaying, micros
from services.scoring.engagement.domain import Bucket, Engagement
from services.scoring.fit.domain import Fit
from shared.events import Grade
from shared.ids import AccountId, LeadId

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = 86_400_000_000
NO_FIT = Fit(0, "D")


def member(name: str, points: float, fit: int = 0, grade: Grade = "D") -> Member:
    return Member(LeadId(name), AccountId("acme"), points, Fit(fit, grade), Engagement())


PEOPLE = [member("a", 40), member("b", 30, 60, "B"), member("c", 5, 20), member("d", 90, 80, "F")]


@pytest.mark.parametrize(
    ("rules", "engagement", "engaged"),
    [
        (AccountRules(), 75, 2),
        (AccountRules(engagement="max"), 40, 2),
        (AccountRules(engagement="top", top=2), 70, 2),
        (AccountRules(limit=50), 50, 2),
        (AccountRules(min_people=2), 75, 2),
        (AccountRules(min_people=3), 0, 2),
        (AccountRules(min_people=3, engaged_from=5), 75, 3),
    ],
)
def test_people_are_added_up_as_the_rules_say_and_excluded_ones_never(
    rules: AccountRules, engagement: float, engaged: int
) -> None:
    score = account_score(rules, PEOPLE, NO_FIT, NOW)
    assert (score.engagement, score.engaged_people) == (engagement, engaged)
    assert min(sum(points for _, points in score.given), rules.limit) == engagement
    assert len(score.given) == 4


@pytest.mark.parametrize(
    ("way", "own", "expected"),
    [
        ("best", Fit(10, "D"), (60, "B", "b")),
        ("best", Fit(70, "A"), (70, "A", None)),
        ("best", Fit(90, "F"), (60, "B", "b")),
        ("people", Fit(70, "A"), (60, "B", "b")),
        ("account", Fit(70, "A"), (70, "A", None)),
    ],
)
def test_fit_is_that_of_the_best_who_is_not_excluded(way: str, own: Fit, expected: tuple[int, str, str | None]) -> None:
    score = account_score(AccountRules(fit=way), PEOPLE, own, NOW)  # type: ignore[arg-type]  # one of the words
    assert (score.fit.points, score.fit.grade, score.fit_from) == expected


def test_an_account_of_excluded_people_alone_is_excluded() -> None:
    assert account_score(AccountRules(fit="people"), PEOPLE[3:], NO_FIT, NOW).fit.grade == "F"
    assert account_score(AccountRules(), [], NO_FIT, NOW).fit.grade == "D"


def decaying(dice: Random, name: str) -> Engagement:
    sums = {
        Bucket(str(number), half_life * DAY): Decaying.term(
            dice.choice([1, 5, 15, 50, 50, -10]), micros(NOW) - dice.randrange(DAY * 40), half_life * DAY
        )
        for number, half_life in enumerate(dice.choices([3, 7, 30, 84], k=dice.randrange(1, 4)))
    }
    return Engagement(sums, NOW)


def at(rules: AccountRules, people: dict[str, Engagement], moment: datetime) -> AccountScore:
    """The score as the service makes it: each person's sums, at least 0 and at most 100."""

    def points(sums: Engagement) -> float:
        whole = sum(total.value(micros(moment), bucket.half_life) for bucket, total in sums.sums.items())
        return round(min(max(whole, 0.0), 100.0), 6)

    members = [Member(LeadId(name), AccountId("acme"), points(sums), NO_FIT, sums) for name, sums in people.items()]
    return account_score(rules, members, NO_FIT, moment)


@pytest.mark.parametrize("seed", range(6))
def test_a_change_is_looked_for_at_once_and_looks_are_few(seed: int) -> None:
    dice = Random(seed)
    people = {str(number): decaying(dice, str(number)) for number in range(dice.randrange(1, 6))}
    rules = dice.choice(
        [AccountRules(), AccountRules(engagement="top", top=2), AccountRules(limit=40), AccountRules(min_people=2)]
    )
    moment, looks, told = NOW, 0, []
    while moment < NOW + timedelta(days=15):
        score = at(rules, people, moment)
        told.append(score.whole)
        looks += 1
        look = next_look(rules, score)
        if look is None:
            break
        shortest = min(bucket.half_life for sums in people.values() for bucket in sums.sums)
        in_time = look - timedelta(microseconds=shortest // 10_000)
        for part in (0.1, 0.5, 0.9, 1.0):
            between = moment + (in_time - moment) * part
            assert between <= moment or at(rules, people, between).whole == score.whole, (between, look)
        moment = look
    changes = sum(one != other for one, other in pairwise(told))
    assert looks <= 40 * (changes + 3), (looks, changes)
