"""Facts about stages, reps and deals, and what is to be counted of them, put together plainly from the whole set."""

import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.attribution.channels.domain import NOT_SET
from services.attribution.domain import Profile
from services.attribution.pipeline.counting import Cell, Total, cells_of, marks_of, total_of
from services.attribution.pipeline.domain import (
    Assigned,
    Circumstances,
    DealStep,
    Mark,
    Owner,
    Payment,
    Story,
)
from shared.contacts import CONTACTS
from shared.events import (
    AssignmentAccepted,
    AssignmentExpired,
    AssignmentRejected,
    DealChanged,
    Event,
    IdentityLinked,
    LeadAssigned,
    LeadErased,
    Stage,
    StageChanged,
    TouchRecorded,
)
from shared.ids import AssignmentId, DealId, LeadId, RepId
from tests.service.attribution_facts import DAY, NOW, Teller, World
from tests.service.attribution_random import ACCOUNTS, random_account

STAGES: tuple[Stage, ...] = ("subscriber", "lead", "mql", "sal", "sql", "opportunity", "customer")
PIPELINE = ("first", "middle", "late")
PROBABILITIES = {"first": 10, "middle": 50, "late": 90, "won": 100, "lost": 0}
ANSWERS = (AssignmentAccepted, AssignmentRejected, AssignmentExpired)


@dataclass
class PipelineTeller(Teller):
    """Makes the facts that scoring and routing tell."""

    def stage(self, who: str, days_before: float, stage: Stage, revision: int | None = None) -> StageChanged:
        """Somebody entered a stage."""
        number, envelope = self._envelope(who, days_before)
        return StageChanged(
            **envelope,  # type: ignore[arg-type]  # fields by name
            revision=revision or number,
            stage=stage,
            reason="a test says so",
            engagement=1,
            fit=1,
            total=2,
            grade="C",
            rules_version=1,
        )

    def offered(  # noqa: PLR0913  # what an offer is made of
        self,
        who: str,
        days_before: float,
        assignment_id: str,
        rep: str = "rosa",
        *,
        teams: Sequence[str] = (),
        due_after: float | None = None,
        revision: int = 1,
    ) -> LeadAssigned:
        """A lead was offered to a rep."""
        _, envelope = self._envelope(who, days_before)
        return LeadAssigned(
            **envelope,  # type: ignore[arg-type]  # fields by name
            assignment_id=AssignmentId(assignment_id),
            revision=revision,
            rep_id=RepId(rep),
            queue="sales",
            strategy="round_robin",
            rules_version=1,
            due_at=None if due_after is None else NOW - (days_before - due_after) * DAY,
            teams=tuple(teams),
        )

    def accepted(self, who: str, days_before: float, assignment_id: str) -> AssignmentAccepted:
        """The rep took the lead."""
        return AssignmentAccepted(**self._answer(who, days_before, assignment_id))

    def rejected(self, who: str, days_before: float, assignment_id: str) -> AssignmentRejected:
        """The rep gave the lead back."""
        return AssignmentRejected(**self._answer(who, days_before, assignment_id), reason="a test says so")

    def expired(self, who: str, days_before: float, assignment_id: str) -> AssignmentExpired:
        """The rep did neither."""
        return AssignmentExpired(**self._answer(who, days_before, assignment_id))

    def deal_step(
        self, who: str, days_before: float, deal_id: str, stage: str, revision: int, **more: Any
    ) -> DealChanged:
        """A deal changed; `won` and `lost` end it. It was opened then, unless `opened` says so many days before now."""
        _, envelope = self._envelope(who, days_before)
        at = NOW - days_before * DAY
        status = stage if stage in {"won", "lost"} else "open"
        opened = more.pop("opened", days_before)
        fields = {
            "value_minor": 10_000,
            "currency": "EUR",
            "pipeline_stages": PIPELINE,
            "closed_at": at if status != "open" else None,
            **more,
        }
        return DealChanged(
            **envelope,  # type: ignore[arg-type]  # fields by name
            deal_id=DealId(deal_id),
            revision=revision,
            name="Deal",
            status=status,  # type: ignore[arg-type]  # one of three
            stage=stage,
            probability=PROBABILITIES[stage],
            opened_at=NOW - opened * DAY,
            **fields,
        )

    def _answer(self, who: str, days_before: float, assignment_id: str) -> dict[str, Any]:
        _, envelope = self._envelope(who, days_before)
        return {**envelope, "assignment_id": AssignmentId(assignment_id), "rep_id": RepId("rosa")}


def random_pipeline(seed: int, length: int = 60) -> list[Event]:
    """Everything that can happen to a few people on their way to a deal, in the order it was told."""
    dice = random.Random(seed)
    teller = PipelineTeller(f"p{seed}")
    people, browsers = ["p0", "p1", "p2", "p3"], ["b0", "b1"]
    facts: list[Event] = []
    kinds = [
        "stage",
        "touch",
        "offered",
        "answer",
        "deal",
        "captured",
        "conversion",
        "refund",
        "link",
        "merge",
        "erased",
        "account",
    ]
    for _ in range(length):
        kind = dice.choices(kinds, [8, 8, 5, 4, 6, 4, 3, 1, 2, 3, 0.8, 3])[0]
        facts.append(_random_fact(kind, dice, teller, people, browsers, len(facts) + 1))
    return facts


def _random_fact(  # noqa: PLR0913  # what decides it
    kind: str, dice: random.Random, teller: PipelineTeller, people: list[str], browsers: list[str], revision: int
) -> Event:
    who, days = dice.choice(people), round(dice.uniform(0, 100), 3)
    anyone = dice.choice([*people, *browsers])
    name = teller.name
    match kind:
        case "stage":
            return teller.stage(anyone, days, dice.choice([*STAGES, "disqualified", "recycled"]), revision)
        case "touch":
            return teller.touch(
                anyone,
                days,
                touch_id=f"{name}-{dice.randrange(12)}",
                channel=dice.choice(["Email", "Paid Search", None]),
                kind=dice.choice(["page_view", *CONTACTS[:3]]),
                source=dice.choice([None, "google"]),
                campaign=dice.choice([None, "autumn"]),
                automated=dice.random() < 0.2,
            )
        case "offered":
            return teller.offered(
                who,
                days,
                f"{name}-a{dice.randrange(5)}",
                dice.choice(["rosa", "rolf"]),
                teams=dice.choice([(), ("emea",), ("emea", "south")]),
                due_after=dice.choice([None, 0.5, 3]),
                revision=revision,
            )
        case "answer":
            tell = dice.choice([teller.accepted, teller.rejected, teller.expired])
            return tell(who, days, f"{name}-a{dice.randrange(5)}")
        case "deal":
            return teller.deal_step(
                who,
                days,
                f"{name}-d{dice.randrange(3)}",
                dice.choice([*PIPELINE, "won", "lost"]),
                revision,
                value_minor=dice.choice([0, 100, 5_000]),
                recurring_minor=dice.choice([None, 0, 10, 70]),
                currency=dice.choice(["EUR", "EUR", "USD"]),
                rep_id=dice.choice([None, RepId("rosa")]),
                teams=dice.choice([(), ("emea",)]),
                pipeline_stages=dice.choice([PIPELINE, (), ("first", "late")]),
                opened=days + dice.choice([0, 5]),
            )
        case "captured":
            country, account = dice.choice([(None, ACCOUNTS[2]), ("DE", None), ("FR", ACCOUNTS[1])])
            return teller.captured(who, days, revision, country=country, account=account and f"{name}-{account}")
        case "conversion":
            value, deal = dice.choice([0, 100, 7_000]), dice.choice([None, f"{name}-d0"])
            external_id, currency = f"c{dice.randrange(4)}", dice.choice(["EUR", "USD"])
            return teller.conversion(who, days, value, external_id=external_id, currency=currency, deal_id=deal)
        case "refund":
            return teller.refund(f"c{dice.randrange(4)}", dice.choice([50, 7_000]), refund_id=f"r{dice.randrange(2)}")
        case "link":
            return teller.linked(dice.choice(browsers), who, days)
        case "merge":
            into, source = sorted(dice.sample(range(len(people)), 2))
            merge = teller.merged if dice.random() < 0.7 else teller.unmerged
            return merge(people[source], people[into], days)
        case "account":
            return random_account(dice, teller, revision)
        case _:
            return teller.erased(anyone)


def sums_of(marks: Mapping[LeadId, tuple[Circumstances, frozenset[Mark]]]) -> dict[Cell, Total]:
    """The sums of marks, without those that come to nothing."""
    sums: dict[Cell, Total] = defaultdict(Total)
    for circumstances, theirs in marks.values():
        for mark in theirs:
            for cell in cells_of(mark, circumstances):
                sums[cell] = sums[cell].plus(total_of(mark))
    return {cell: total for cell, total in sums.items() if any(total)}


class PipelineWorld(World):
    """All facts at once, and the marks that follow from them."""

    def marks(self) -> dict[LeadId, tuple[Circumstances, frozenset[Mark]]]:
        """What is to be counted of each person."""
        found = {}
        for person, story in self.stories().items():
            if marks := marks_of(story):
                found[person] = (story.circumstances, frozenset(marks))
        return found

    def stories(self) -> dict[LeadId, Story]:
        """The story of everybody."""
        people = {self.owner(fact.lead_id, fact.occurred_at) for fact in self.facts if fact.lead_id}
        people |= {self.owner(fact.lead_id, NOW) for fact in self.facts if fact.lead_id}
        return {person: self._story(person) for person in people}

    def _story(self, person: LeadId) -> Story:
        profile = self._profile(person)
        return Story(
            circumstances=self._circumstances(person, profile),
            captured_at=profile.created_at if profile else None,
            erased=any(person in self._everybody_behind(fact.lead_id) for fact in self._of(LeadErased)),
            stages=self._stages(person),
            assignments=self._assignments(person),
            contacts=[
                fact.occurred_at for fact in self._touches_of(person) if fact.type in CONTACTS and not fact.automated
            ],
            deals=self._deals_of(person),
            payments=self._payments(person),
        )

    def _everybody_behind(self, lead_id: LeadId) -> set[LeadId]:
        links = [fact.occurred_at for fact in self._of(IdentityLinked) if fact.anonymous_lead_id == lead_id]
        return {self.owner(lead_id, at) for at in [*links, NOW]}

    def _touches_of(self, person: LeadId) -> list[TouchRecorded]:
        return [fact for fact in self._touches() if self.owner(fact.lead_id, fact.occurred_at) == person]

    def _circumstances(self, person: LeadId, profile: Profile | None) -> Circumstances:
        touches = [fact for fact in self._touches_of(person) if not fact.automated]
        country, account = [(profile and getattr(profile, name)) or NOT_SET for name in ("country", "account")]
        if not touches:
            return Circumstances(country=country, account=account)
        first = self._touch(min(touches, key=lambda fact: (fact.occurred_at, fact.touch_id, fact.origin)))
        return Circumstances(first.channel, first.source or NOT_SET, first.campaign or NOT_SET, country, account)

    def _stages(self, person: LeadId) -> dict[str, datetime]:
        newest = {
            (fact.lead_id, fact.revision): fact
            for fact in sorted(self._of(StageChanged), key=lambda fact: (fact.received_at, fact.event_id))
        }
        first: dict[str, datetime] = {}
        for fact in newest.values():
            if self.owner(fact.lead_id, fact.occurred_at) == person:
                first[fact.stage] = min(fact.occurred_at, first.get(fact.stage, fact.occurred_at))
        return first

    def _assignments(self, person: LeadId) -> list[Assigned]:
        newest = {fact.assignment_id: fact for fact in sorted(self._of(LeadAssigned), key=lambda fact: fact.revision)}
        return [
            Assigned(
                assignment_id=fact.assignment_id,
                at=fact.occurred_at,
                owner=Owner(fact.rep_id, fact.teams),
                revision=fact.revision,
                due_at=fact.due_at,
                accepted_at=self._answered(AssignmentAccepted, fact.assignment_id),
                rejected_at=self._answered(AssignmentRejected, fact.assignment_id),
                expired_at=self._answered(AssignmentExpired, fact.assignment_id),
            )
            for fact in newest.values()
            if self.owner(fact.lead_id, fact.occurred_at) == person
        ]

    def _answered(
        self, kind: type[AssignmentAccepted | AssignmentRejected | AssignmentExpired], assignment_id: AssignmentId
    ) -> datetime | None:
        return min((fact.occurred_at for fact in self._of(kind) if fact.assignment_id == assignment_id), default=None)

    def _deals_of(self, person: LeadId) -> dict[DealId, list[DealStep]]:
        told: dict[DealId, list[DealChanged]] = defaultdict(list)
        for fact in sorted(self._of(DealChanged), key=lambda fact: fact.revision):
            told[fact.deal_id].append(fact)
        return {
            deal_id: [self._step(fact) for fact in facts]
            for deal_id, facts in told.items()
            if self.owner(facts[-1].lead_id, facts[-1].opened_at) == person
        }

    def _step(self, fact: DealChanged) -> DealStep:
        return DealStep(
            revision=fact.revision,
            at=fact.occurred_at,
            status=fact.status,
            stage=fact.stage,
            probability=fact.probability,
            value_minor=fact.value_minor,
            currency=fact.currency,
            opened_at=fact.opened_at,
            recurring_minor=fact.recurring_minor or 0,
            owner=Owner(fact.rep_id or NOT_SET, fact.teams),
            closed_at=fact.closed_at,
            pipeline_stages=fact.pipeline_stages,
        )

    def _payments(self, person: LeadId) -> list[Payment]:
        theirs = [fact for fact in self._conversions() if self.owner(fact.lead_id, fact.occurred_at) == person]
        return [
            Payment(one.conversion_id, one.occurred_at, one.value_minor, one.currency, one.deal_id)
            for one in (self._conversion(fact) for fact in theirs)
        ]
