"""What there should be of sequences of channels, computed plainly from all facts at once."""

from collections import Counter
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from itertools import groupby

from shared.events import Event
from shared.ids import LeadId
from shared.testing import Harness
from tests.service.attribution_facts import DAY, World

Row = tuple[str, str, date, str, str, tuple[str, ...] | int]
"""Subject, level, day, currency, type of conversion, and keys or number."""

EPOCH = date(1970, 1, 1)


class PathWorld:
    """Journeys and their sums by the definitions, and nothing of how they are kept."""

    def __init__(self, facts: Sequence[Event]) -> None:
        self.world = World(facts)
        touches = [self.world._touch(fact) for fact in self.world._touches()]
        owners = [self.world.owner(fact.lead_id, fact.occurred_at) for fact in self.world._touches()]
        self.touches: dict[LeadId, list[tuple[datetime, str, str, str]]] = {}
        for touch, owner in zip(touches, owners, strict=True):
            if not touch.automated:
                place = (touch.occurred_at, touch.touch_id, touch.origin, touch.channel)
                self.touches.setdefault(owner, []).append(place)
        for theirs in self.touches.values():
            theirs.sort()
        self.conversions = [
            (self.world._conversion(fact), self.world.owner(fact.lead_id, fact.occurred_at))
            for fact in self.world._conversions()
        ]

    def remainders(self) -> dict[LeadId, tuple[datetime, tuple[str, ...]]]:
        """What follows each person's last conversion, and when it ends."""
        found = {}
        for person, touches in self.touches.items():
            times = [conversion.occurred_at for conversion, owner in self.conversions if owner == person]
            left = [touch for touch in touches if not times or touch[0] > max(times)]
            if left:
                found[person] = left[-1][0], without_runs([touch[3] for touch in left])
        return found

    def sums(self) -> dict[Row, tuple[int, int]]:
        """The rows of `path_sums` and, under the level `all`, of `path_ranks`."""
        journeys: Counter[Row] = Counter()
        values: Counter[Row] = Counter()
        for conversion, owner in self.conversions:
            at = conversion.occurred_at
            path = [touch for touch in self.touches.get(owner, []) if at - timedelta(days=90) <= touch[0] <= at]
            channels = tuple(touch[3] for touch in path)
            rows = steps(without_runs(channels)) if channels else []
            rows += [("part", (channel,)) for channel in set(channels)]
            rows += [("assist", (channel,)) for channel in set(channels[:-1])]
            rows += [("path", channels), ("route", without_runs(channels)), ("length", len(channels))]
            rows += [("lag", (at - path[0][0]) // DAY if path else -1)]
            for subject, keys in rows:
                for row in levels(subject, keys, at.date(), conversion.currency, conversion.type):
                    journeys[row] += 1
                    values[row] += conversion.value_minor
        for last_at, channels in self.remainders().values():
            for subject, keys in steps(channels):
                for row in levels(subject, keys, last_at.date(), "", ""):
                    journeys[row] += 1
        return {row: (number, values[row]) for row, number in journeys.items()}


def steps(visits: tuple[str, ...]) -> list[tuple[str, tuple[str, ...] | int]]:
    found: list[tuple[str, tuple[str, ...] | int]] = [("set", tuple(sorted(set(visits))))]
    found += [("last", visits[-1:]), ("tail", visits[-4:])]
    for end in range(1, len(visits) + 1):
        found += [("step", visits[max(0, end - 2) : end]), ("gram", visits[max(0, end - 5) : end])]
    return found


def levels(subject: str, keys: tuple[str, ...] | int, day: date, currency: str, kind: str) -> list[Row]:
    over_all_time: Row = (subject, "all", EPOCH, currency, "", keys)
    by_month: Row = (subject, "month", day.replace(day=1), currency, kind, keys)
    if subject in ("gram", "tail"):
        return [by_month, over_all_time]
    return [(subject, "day", day, currency, kind, keys), by_month, over_all_time]


def without_runs(channels: Sequence[str]) -> tuple[str, ...]:
    return tuple(channel for channel, _ in groupby(channels))


async def stored_sums(service: Harness) -> dict[Row, tuple[int, int]]:
    """What is stored, in the same form."""
    async with service.runtime.database.reading() as connection:
        sums = await connection.fetch("SELECT * FROM path_sums")
        ranks = await connection.fetch("SELECT * FROM path_ranks")
    found: dict[Row, tuple[int, int]] = {}
    for row in sums:
        keys = row["key_id"] if row["subject"] in ("length", "lag") else tuple(row["keys"])
        place = (row["subject"], row["level"], row["day"], row["currency"], row["conversion_type"], keys)
        found[place] = row["journeys"], row["value_minor"]
    for row in ranks:
        place = (row["subject"], "all", EPOCH, row["currency"], "", tuple(row["keys"]))
        found[place] = row["journeys"], row["value_minor"]
    return found


async def stored_remainders(service: Harness) -> dict[LeadId, tuple[datetime, tuple[str, ...]]]:
    async with service.runtime.database.reading() as connection:
        rows = await connection.fetch("SELECT * FROM remainders")
    return {row["person_id"]: (row["last_at"], tuple(row["channels"])) for row in rows}
