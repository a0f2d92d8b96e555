"""Histories that chance makes, for attribution's tests."""

import random

from shared.events import AccountChanged, Event
from tests.service.attribution_facts import Teller

CHANNELS = ("Email", "Paid Search", "Direct", "Organic Social", None)
ACCOUNTS = ("acme", "globex", "initech")


def random_history(seed: int, length: int = 45) -> list[Event]:  # noqa: C901  # one case for each kind
    """Everything that can happen to a few people and browsers, with corrections, in the order it was told."""
    dice = random.Random(seed)
    teller = Teller(f"h{seed}")
    people, browsers = ["p0", "p1", "p2", "p3"], ["b0", "b1"]
    facts: list[Event] = []
    for _ in range(length):
        who, days = dice.choice([*people, *browsers]), round(dice.uniform(0, 120), 3)
        match dice.choices(
            [
                *("touch", "conversion", "refund", "link", "merge", "captured", "deal", "assigned", "withdrawn"),
                *("erased", "account"),
            ],
            [18, 8, 4, 4, 4, 4, 2, 2, 1, 0.8, 3],
        )[0]:
            case "touch":
                facts.append(
                    teller.touch(
                        who,
                        days,
                        touch_id=f"h{seed}-{dice.randrange(25)}",
                        channel=dice.choice(CHANNELS),
                        kind=dice.choice(["page_view", "email_opened", "demo_requested"]),
                        source=dice.choice([None, "google", "news"]),
                        content=dice.choice([None, None, "banner"]),
                        page=dice.choice([None, "https://shop.example/?id=1", "/pricing"]),
                        automated=dice.random() < 0.1,
                    )
                )
            case "withdrawn":
                facts.append(teller.withdrawn(f"h{seed}-{dice.randrange(25)}"))
            case "conversion":
                facts.append(
                    teller.conversion(
                        who,
                        round(days / 3, 3),
                        dice.choice([0, 1, 100, 9_999, 100_001]),
                        external_id=f"c{dice.randrange(6)}",
                        currency=dice.choice(["EUR", "EUR", "USD"]),
                        deal_id=dice.choice([None, f"h{seed}-d0"]),
                        kind=dice.choice(["purchase", "signup"]),
                    )
                )
            case "refund":
                facts.append(
                    teller.refund(
                        f"c{dice.randrange(6)}",
                        dice.choice([1, 50, 5_000]),
                        refund_id=f"r{dice.randrange(3)}",
                        currency=dice.choice(["EUR", "USD"]),
                    )
                )
            case "link":
                facts.append(teller.linked(dice.choice(browsers), dice.choice(people), days))
            case "merge":
                into, source = sorted(dice.sample(range(len(people)), 2))
                tell = teller.merged if dice.random() < 0.7 else teller.unmerged
                facts.append(tell(people[source], people[into], days))
            case "captured":
                facts.append(
                    teller.captured(
                        dice.choice(people),
                        days,
                        revision=len(facts),
                        country=dice.choice([None, "DE", "FR"]),
                        account=dice.choice([None, *(f"h{seed}-{name}" for name in ACCOUNTS)]),
                    )
                )
            case "deal":
                rep = dice.choice([None, "rosa", "rolf"])
                facts.append(teller.deal(f"h{seed}-d0", dice.choice(people), days, revision=len(facts), rep=rep))
            case "assigned":
                rep = dice.choice(["rosa", "rolf"])
                facts.append(teller.assigned(dice.choice(people), days, rep, revision=len(facts)))
            case "erased":
                facts.append(teller.erased(dice.choice([*people, *browsers])))
            case "account":
                facts.append(random_account(dice, teller, len(facts)))
    return facts


def random_account(dice: random.Random, teller: Teller, revision: int) -> AccountChanged:
    """One of the teller's accounts as it stands: itself, or one of those before it."""
    place = dice.randrange(len(ACCOUNTS))
    into = dice.choice([None, *ACCOUNTS[:place], *ACCOUNTS[:place]])
    named = [name and f"{teller.name}-{name}" for name in (ACCOUNTS[place], into)]
    return teller.account(str(named[0]), revision, merged_into=named[1])
