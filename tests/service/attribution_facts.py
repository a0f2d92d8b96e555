"""Facts for attribution's tests, and its answers computed plainly from the whole set of them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import TypeVar

from services.attribution.channels.domain import group_touch
from services.attribution.credits.domain import Credited, Person, credit
from services.attribution.domain import (
    Conversion,
    CreditingRun,
    Deal,
    Profile,
    Touch,
    left_after_refunds,
    longest_lookback,
)
from shared.events import (
    AccountChanged,
    ConversionRecorded,
    CostRecorded,
    DealChanged,
    Event,
    IdentityLinked,
    LeadAssigned,
    LeadCaptured,
    LeadErased,
    LeadMerged,
    LeadUnmerged,
    RefundRecorded,
    TouchRecorded,
    TouchWithdrawn,
)
from shared.ids import AccountId, AssignmentId, ConversionId, DealId, EventId, LeadId, RepId, TouchId, derived_id

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
E = TypeVar("E", bound=Event)


@dataclass
class Teller:
    """Makes facts with ids of their own and rising log positions, as their writers do."""

    name: str = "test"
    _numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def lead(self, name: str) -> LeadId:
        """The id of somebody."""
        return LeadId(derived_id(self.name, name))

    def conversion_id(self, external_id: str) -> ConversionId:
        """The id of a conversion."""
        return ConversionId(derived_id(self.name, "conversion", external_id))

    def touch(  # what a touch is made of
        self,
        who: str,
        days_before: float,
        *,
        touch_id: str | None = None,
        channel: str | None = "Email",
        kind: str = "page_view",
        **more: object,
    ) -> TouchRecorded:
        """A touch so many days before now."""
        number, envelope = self._envelope(who, days_before)
        name = TouchId(touch_id or f"{self.name}-t{number}")
        return TouchRecorded(**envelope, touch_id=name, type=kind, channel=channel, **more)  # type: ignore[arg-type]  # fields by name

    def conversion(  # noqa: PLR0913  # what a conversion is made of
        self,
        who: str,
        days_before: float,
        value_minor: int,
        *,
        external_id: str | None = None,
        currency: str = "EUR",
        deal_id: str | None = None,
        kind: str = "purchase",
    ) -> ConversionRecorded:
        """A conversion so many days before now."""
        number, envelope = self._envelope(who, days_before)
        external_id = external_id or f"c{number}"
        return ConversionRecorded(
            **envelope,  # type: ignore[arg-type]  # fields by name
            conversion_id=self.conversion_id(external_id),
            external_id=external_id,
            type=kind,
            value_minor=value_minor,
            currency=currency,
            deal_id=DealId(deal_id) if deal_id else None,
        )

    def refund(
        self, external_id: str, amount_minor: int, *, refund_id: str | None = None, currency: str = "EUR"
    ) -> RefundRecorded:
        """A refund of a conversion."""
        number, envelope = self._envelope("", 0)
        return RefundRecorded(
            **envelope,  # type: ignore[arg-type]  # fields by name
            conversion_id=self.conversion_id(external_id),
            external_id=external_id,
            refund_id=refund_id or f"r{number}",
            amount_minor=amount_minor,
            currency=currency,
        )

    def withdrawn(self, touch_id: str, reason: str = "a scanner") -> TouchWithdrawn:
        """A touch turned out to be a machine's."""
        _, envelope = self._envelope("", 0)
        return TouchWithdrawn(**envelope, touch_id=TouchId(touch_id), reason=reason)  # type: ignore[arg-type]  # fields by name

    def linked(self, anonymous: str, who: str, days_before: float) -> IdentityLinked:
        """A browser turned out to be somebody's, from a moment on."""
        _, envelope = self._envelope(who, days_before)
        return IdentityLinked(**envelope, anonymous_lead_id=self.lead(anonymous))  # type: ignore[arg-type]  # fields by name

    def merged(self, source: str, into: str, days_before: float = 0) -> LeadMerged:
        """Somebody turned out to be somebody else."""
        _, envelope = self._envelope(into, days_before)
        return LeadMerged(**envelope, from_lead_id=self.lead(source))  # type: ignore[arg-type]  # fields by name

    def unmerged(self, source: str, into: str, days_before: float = 0) -> LeadUnmerged:
        """They did not."""
        _, envelope = self._envelope(into, days_before)
        return LeadUnmerged(**envelope, from_lead_id=self.lead(source))  # type: ignore[arg-type]  # fields by name

    def captured(
        self,
        who: str,
        days_before: float,
        revision: int = 1,
        *,
        country: str | None = None,
        account: str | None = None,
    ) -> LeadCaptured:
        """Somebody told who they are."""
        _, envelope = self._envelope(who, days_before)
        return LeadCaptured(
            **envelope,  # type: ignore[arg-type]  # fields by name
            revision=revision,
            captured_at=NOW - days_before * DAY,
            country=country,
            account_id=AccountId(account) if account else None,
        )

    def assigned(self, who: str, days_before: float, rep: str, revision: int = 1) -> LeadAssigned:
        """A lead was given to a rep."""
        number, envelope = self._envelope(who, days_before)
        return LeadAssigned(
            **envelope,  # type: ignore[arg-type]  # fields by name
            assignment_id=AssignmentId(f"{self.name}-a{number}"),
            revision=revision,
            rep_id=RepId(rep),
            queue="sales",
            strategy="round_robin",
            rules_version=1,
        )

    def deal(
        self, deal_id: str, who: str, days_before: float, revision: int = 1, *, rep: str | None = None
    ) -> DealChanged:
        """A deal was created."""
        _, envelope = self._envelope(who, days_before)
        return DealChanged(
            **envelope,  # type: ignore[arg-type]  # fields by name
            deal_id=DealId(deal_id),
            revision=revision,
            name="Deal",
            status="open",
            stage="new",
            probability=10,
            value_minor=0,
            currency="EUR",
            rep_id=RepId(rep) if rep else None,
            opened_at=NOW - days_before * DAY,
        )

    def erased(self, who: str) -> LeadErased:
        """Somebody is forgotten."""
        _, envelope = self._envelope(who, 0)
        return LeadErased(**envelope)  # type: ignore[arg-type]  # fields by name

    def account(self, name: str, revision: int = 1, *, merged_into: str | None = None) -> AccountChanged:
        """An account as it stands, or another one from now on."""
        _, envelope = self._envelope("", 0)
        return AccountChanged(
            **envelope | {"lead_id": LeadId(name)},  # type: ignore[arg-type]  # fields by name
            account_id=AccountId(name),
            revision=revision,
            merged_into=AccountId(merged_into) if merged_into else None,
        )

    def cost(
        self, day: date, channel: str, amount_minor: int, *, campaign: str | None = None, currency: str = "EUR"
    ) -> CostRecorded:
        """What was spent on a day."""
        _, envelope = self._envelope("", 0)
        return CostRecorded(
            **envelope,  # type: ignore[arg-type]  # fields by name
            date=day,
            channel=channel,
            campaign=campaign,
            amount_minor=amount_minor,
            currency=currency,
        )

    def _envelope(self, who: str, days_before: float) -> tuple[int, dict[str, object]]:
        number = next(self._numbers)
        return number, {
            "event_id": EventId(f"{self.name}:{number}"),
            "lead_id": self.lead(who) if who else LeadId(""),
            "occurred_at": NOW - days_before * DAY,
            "received_at": NOW + timedelta(seconds=number),
            "position": number,
        }


@dataclass
class World:
    """All facts at once, and what follows from them by the definitions, computed the plain way."""

    facts: Sequence[Event]

    def credited(self, runs: Sequence[CreditingRun]) -> dict[ConversionId, Credited]:
        """What every conversion should come to."""
        found: dict[ConversionId, Credited] = {}
        touches = [(self._touch(fact), self.owner(fact.lead_id, fact.occurred_at)) for fact in self._touches()]
        placed = [(fact, self.owner(fact.lead_id, fact.occurred_at)) for fact in self._conversions()]
        deals = self._deals()
        for fact, owner in placed:
            person = Person(
                owner,
                [touch for touch, whose in touches if whose == owner],
                sorted(one.occurred_at for one, whose in placed if whose == owner),
                self._reps(owner),
                self._profile(owner),
            )
            deal = deals.get(fact.deal_id) if fact.deal_id else None
            conversion = self._conversion(fact)
            found[fact.conversion_id] = credit(person, conversion, deal, runs, longest_lookback(runs))
        return found

    def owner(self, lead_id: LeadId, at: datetime) -> LeadId:
        """Whose a fact is."""
        links = sorted((f.occurred_at, f.lead_id) for f in self._of(IdentityLinked) if f.anonymous_lead_id == lead_id)
        if links:
            before = [link for link in links if link[0] <= at]
            lead_id = (before[-1] if before else links[0])[1]
        aliases: dict[LeadId, tuple[datetime, EventId, LeadId | None]] = {}
        changes: list[LeadMerged | LeadUnmerged] = [*self._of(LeadMerged), *self._of(LeadUnmerged)]
        for fact in changes:
            told = (fact.occurred_at, fact.event_id, fact.lead_id if isinstance(fact, LeadMerged) else None)
            if fact.from_lead_id not in aliases or aliases[fact.from_lead_id][:2] < told[:2]:
                aliases[fact.from_lead_id] = told
        while (alias := aliases.get(lead_id)) and alias[2]:
            lead_id = alias[2]
        return lead_id

    def _profile(self, person: LeadId) -> Profile | None:
        newest: dict[LeadId, LeadCaptured] = {}
        for fact in sorted(self._of(LeadCaptured), key=lambda fact: fact.revision):
            newest[fact.lead_id] = fact
        theirs = {lead_id: fact for lead_id, fact in newest.items() if self.owner(lead_id, NOW) == person}
        if not theirs:
            return None
        told = theirs.get(person) or theirs[min(theirs)]
        created_at = min(fact.captured_at for fact in theirs.values())
        return Profile(created_at, told.country, self._account(told))

    def _account(self, told: LeadCaptured) -> AccountId | None:
        """An erased person's account is what it became; everybody else is told theirs."""
        account = told.account_id
        if told.lead_id not in {one.lead_id for one in self._of(LeadErased)}:
            return account
        ordered = sorted(self._of(AccountChanged), key=lambda fact: fact.revision)
        accounts = {fact.account_id: fact.merged_into for fact in ordered}
        while account and (into := accounts.get(account)):
            account = into
        return account

    def _reps(self, person: LeadId) -> list[tuple[datetime, RepId]]:
        ordered = sorted(self._of(LeadAssigned), key=lambda fact: (fact.occurred_at, fact.revision, fact.assignment_id))
        return [
            (fact.occurred_at, fact.rep_id) for fact in ordered if self.owner(fact.lead_id, fact.occurred_at) == person
        ]

    def _deals(self) -> dict[DealId, Deal]:
        ordered = sorted(self._of(DealChanged), key=lambda fact: fact.revision)
        return {fact.deal_id: Deal(fact.opened_at, fact.rep_id) for fact in ordered}

    def _touches(self) -> Iterable[TouchRecorded]:
        ordered = sorted(self._of(TouchRecorded), key=lambda fact: fact.position)
        return {(fact.origin, fact.touch_id): fact for fact in ordered}.values()

    def _conversions(self) -> Iterable[ConversionRecorded]:
        ordered = sorted(self._of(ConversionRecorded), key=lambda fact: fact.position)
        return {fact.conversion_id: fact for fact in ordered}.values()

    def _conversion(self, fact: ConversionRecorded) -> Conversion:
        ordered = sorted(self._of(RefundRecorded), key=lambda fact: fact.position)
        refunds = {one.refund_id: one for one in ordered if one.conversion_id == fact.conversion_id}.values()
        amounts = [one.amount_minor for one in refunds if one.currency == fact.currency]
        return Conversion(
            conversion_id=fact.conversion_id,
            origin=fact.origin,
            external_id=fact.external_id,
            lead_id=fact.lead_id,
            type=fact.type,
            value_minor=left_after_refunds(fact.value_minor, amounts),
            currency=fact.currency,
            occurred_at=fact.occurred_at,
            received_at=fact.received_at,
            deal_id=fact.deal_id,
            refunded_minor=sum(amounts),
        )

    def _touch(self, fact: TouchRecorded) -> Touch:
        erased = fact.lead_id in {one.lead_id for one in self._of(LeadErased)}
        names = ("channel", "source", "medium", "campaign", "click_ids", "referrer_host", "page")
        grouping = group_touch(**{name: getattr(fact, name) for name in names})
        return Touch(
            origin=fact.origin,
            touch_id=fact.touch_id,
            occurred_at=fact.occurred_at,
            received_at=fact.received_at,
            type=fact.type,
            channel=grouping.channel,
            channel_rule=grouping.rule,
            source=grouping.source,
            medium=grouping.medium,
            campaign=fact.campaign,
            content=None if erased else fact.content,
            page=None if erased else fact.page,
            automated=fact.automated or fact.touch_id in {one.touch_id for one in self._of(TouchWithdrawn)},
        )

    def _of(self, kind: type[E]) -> list[E]:
        return [fact for fact in self.facts if isinstance(fact, kind)]
