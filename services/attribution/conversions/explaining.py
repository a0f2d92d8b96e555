"""Why a conversion's credits are what they are."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import BaseModel

from services.attribution.channels.groupings import ChannelGrouping
from services.attribution.conversions import queries
from services.attribution.credits.domain import Credited
from services.attribution.credits.queries import stored
from services.attribution.debts import queries as debts
from services.attribution.domain import (
    SHARE_UNITS,
    Conversion,
    CreditingRun,
    Deal,
    Division,
    Milestone,
    Model,
    Path,
    PathRow,
    Profile,
    Reason,
    TotalsModel,
    Touch,
    longest_lookback,
    reason_against,
    skipped,
    told_weights,
)
from services.attribution.history import queries as history
from services.attribution.history.telling import History, Story, history_of, story_of
from services.attribution.journeys.queries import journeys, profiles, touches_against
from services.attribution.models.catalogue import Catalogue
from shared.db import Connection
from shared.errors import Unavailable
from shared.identity import members, resolve, resolve_many
from shared.ids import LeadId

MOST_TOUCHES = 1_000
ALL_MODELS = "all"


class Earned(BaseModel):
    """What one model gave to a touch. `weight` is exact: a fraction, or 28 digits where the model is not rational.

    `milestones` are those that the touch carries on the path that this model looks at.
    """

    weight: str
    milestones: list[Milestone]
    share: float
    value_minor: int
    model_version: int


class Counted(BaseModel):
    """A touch that may earn. `late` says that it was received after the conversion was, and changed its credits.

    `milestones` are those on the whole path, as far back as any model looks; a model that looks less far has others.

    `left_out` names the models that do not look at it, and why.
    """

    touch_id: str
    origin: str
    type: str
    channel: str
    channel_rule: str
    occurred_at: datetime
    received_at: datetime
    late: bool
    milestones: list[Milestone]
    earned: dict[str, Earned]
    left_out: dict[str, Reason]


class NotCounted(BaseModel):
    """A touch that may not earn from this conversion, and why. `lead_id` is whose it is, if it is somebody else's.

    `too_old` (for every model), `after_conversion`, `automated`: a machine made it, and `automated_reason` says how
    that is known; `internal`: own people did. `other_person`: a browser or an id that was tied to this person, when it
    belonged to somebody else. `corrected`: told so at first, and otherwise since.
    """

    touch_id: str
    origin: str
    type: str
    channel: str
    occurred_at: datetime
    received_at: datetime
    reason: Reason
    automated_reason: str | None = None
    lead_id: str | None = None


class Divided(BaseModel):
    """How a model looked at the conversion: how far back, and how many touches that came to."""

    version: int
    title: str
    lookback_days: float | None
    reset_after_conversion: bool
    touches: int


class Explanation(BaseModel):
    """All that a conversion's credits follow from. The lists end after 1,000 touches; the counts do not.

    `lookback_days` is how far back the path reaches, which is as far as any model looks; null without a limit.
    """

    conversion_id: str
    lead_id: str
    type: str
    value_minor: int
    refunded_minor: int
    currency: str
    occurred_at: datetime
    received_at: datetime
    lookback_days: float | None
    lead_created_at: datetime | None
    deal_created_at: datetime | None
    country: str
    account: str
    rep: str
    counted: int
    not_counted: int
    models: dict[str, Divided]
    touches: list[Counted]
    others: list[NotCounted]
    unattributed: dict[str, Earned]
    history: History


@dataclass(frozen=True, slots=True)
class _View:
    """What a run of a model looked at of a path, and what it gave."""

    model: Model
    left_out: int
    seen: Path
    weights: Sequence[str]
    units: Sequence[int]
    value_minor: Sequence[int]

    def earned(self, place: int) -> Earned | None:
        """What the touch at a place of the whole path earned; -1 is what nobody earned."""
        units, minor = self.units[place + 1], self.value_minor[place + 1]
        if not (units or minor):
            return None
        return Earned(
            weight="1" if place < 0 else self.weights[place - self.left_out],
            milestones=[] if place < 0 else self.seen.milestones(place - self.left_out),
            share=units / SHARE_UNITS,
            value_minor=minor,
            model_version=self.model.version,
        )


@dataclass(frozen=True, slots=True)
class Material:
    """All that a conversion's explanation is made of, read from one state of the database.

    `touches` are those on the stored path; `against` the newest of those that no model looks at, of so many. `near` are
    touches of others on ids that were tied to the person, with whose they are; `replaced` those that were told of the
    person and corrected since. `previous` is when the person's conversion before this one was.
    """

    conversion: Conversion
    person: LeadId
    credited: Credited
    runs: Sequence[CreditingRun]
    touches: Sequence[Touch]
    against: Sequence[Touch]
    against_in_all: int
    near: Sequence[tuple[Touch, LeadId]]
    replaced: Sequence[Touch]
    profile: Profile | None
    deal: Deal | None
    previous: datetime | None
    story: Story

    @property
    def reach(self) -> timedelta | None:
        """How far back the models that answer look."""
        return longest_lookback(self.runs)


async def material_of(
    connection: Connection, catalogue: Catalogue, grouping: ChannelGrouping, conversion: Conversion
) -> Material:
    """Read what explains a conversion. Raises Unavailable where it has not been credited by every model yet."""
    runs = await catalogue.dividing(connection)
    numbers = [run.run for run in runs]
    credited = (await stored(connection, [conversion.conversion_id], numbers, {})).get(conversion.conversion_id)
    is_owed = await debts.is_owed(connection, conversion.conversion_id)
    if is_owed or credited is None or len(credited.divisions) < len(runs):
        raise Unavailable("this conversion is about to be credited; try again in a moment")
    at, reach = conversion.occurred_at, longest_lookback(runs)
    person = await resolve(connection, conversion.lead_id, at)
    people = {person: await members(connection, person)}
    span = (None if reach is None else at - reach, at)
    near = await history.nearby(connection, people[person], span, MOST_TOUCHES)
    owners = await resolve_many(connection, [(told.lead_id, told.touch.occurred_at) for told in near])
    lead_ids = [member.lead_id for member in people[person]]
    on_path = credited.path.touches
    reached = {person: (on_path[0].occurred_at, at)} if on_path else {}
    until = max(at, conversion.received_at)
    against, in_all = await touches_against(connection, people, until, span, MOST_TOUCHES)
    sold = (await queries.conversions_of_people(connection, people)).get(person, [])
    deal_id = conversion.deal_id
    return Material(
        conversion=conversion,
        person=person,
        credited=credited,
        runs=runs,
        touches=(await journeys(connection, people, reached, earning=True)).get(person, []),
        against=against,
        against_in_all=in_all,
        near=[(told.touch, owner) for told, owner in zip(near, owners, strict=True) if owner != person],
        replaced=await history.replaced(connection, lead_ids, span, grouping, MOST_TOUCHES),
        profile=(await profiles(connection, people)).get(person),
        deal=(await queries.deals(connection, [deal_id])).get(deal_id) if deal_id else None,
        previous=max((one.occurred_at for one in sold if one.occurred_at < at), default=None),
        story=await story_of(connection, conversion, reach, grouping),
    )


def explain(material: Material, told_by: str) -> Explanation:
    """Lay out a conversion's path as it stands, with the credits that are stored, and how it came to that.

    `told_by` is the model by which the history tells what moved, or `ALL_MODELS`.
    """
    conversion, credited, reach = material.conversion, material.credited, material.reach
    path, hidden = _path(credited.path, material.touches, reach)
    views = [
        _view(path, run.model, credited.divisions[run.run], hidden, material.previous)
        for run in material.runs
        if not isinstance(run.model, TotalsModel)
    ]
    others = [
        *_against(material.against, conversion.occurred_at, reach),
        *(_not_counted(touch, "other_person", owner) for touch, owner in material.near),
        *(_not_counted(touch, "corrected") for touch in material.replaced),
    ]
    told_runs = [run for run in material.runs if told_by in (ALL_MODELS, run.model.model_id)]
    first_received_at = material.story.first_received_at
    return Explanation(
        conversion_id=conversion.conversion_id,
        lead_id=material.person,
        type=conversion.type,
        value_minor=conversion.value_minor,
        refunded_minor=conversion.refunded_minor,
        currency=conversion.currency,
        occurred_at=conversion.occurred_at,
        received_at=first_received_at,
        lookback_days=_days(reach),
        lead_created_at=material.profile.created_at if material.profile else None,
        deal_created_at=material.deal.opened_at if material.deal else None,
        country=credited.path.country,
        account=credited.path.account,
        rep=credited.path.rep,
        counted=len(path.touches),
        not_counted=len(others) - len(material.against) + material.against_in_all,
        models={view.model.model_id: _divided(view, path) for view in views},
        touches=[
            _counted(path, index, views, first_received_at) for index in range(min(len(path.touches), MOST_TOUCHES))
        ],
        others=others[:MOST_TOUCHES],
        unattributed={view.model.model_id: earned for view in views if (earned := view.earned(-1)) is not None},
        history=history_of(material.story, told_runs, reach),
    )


def _path(stored_path: PathRow, touches: Iterable[Touch], reach: timedelta | None) -> tuple[Path, int]:
    """The path as far back as any model looks that answers, and how many stored touches before it are of others."""
    named = {(touch.origin, touch.touch_id): touch for touch in touches}
    on_it = tuple(named[touch.origin, touch.touch_id] for touch in stored_path.touches)
    whole = Path(stored_path.occurred_at, on_it, stored_path.lead_place, stored_path.deal_place)
    hidden = sum(reason_against(touch, whole.at, reach) is not None for touch in on_it)
    return whole.after(hidden), hidden


def _view(path: Path, model: Model, division: Division, hidden: int, previous: datetime | None) -> _View:
    left_out = skipped(path, model, previous)
    seen = path.after(left_out)
    weights = told_weights(seen, model) if seen.touches else []
    units, minor = [(of_all[0], *of_all[hidden + 1 :]) for of_all in (division.units, division.value_minor)]
    return _View(model, left_out, seen, weights, units, minor)


def _divided(view: _View, path: Path) -> Divided:
    model = view.model
    return Divided(
        version=model.version,
        title=model.title,
        lookback_days=_days(model.lookback),
        reset_after_conversion=model.reset_after_conversion,
        touches=len(path.touches) - view.left_out,
    )


def _counted(path: Path, index: int, views: Iterable[_View], since: datetime) -> Counted:
    touch = path.touches[index]
    return Counted(
        touch_id=touch.touch_id,
        origin=touch.origin,
        type=touch.type,
        channel=touch.channel,
        channel_rule=touch.channel_rule,
        occurred_at=touch.occurred_at,
        received_at=touch.received_at,
        late=touch.received_at > since,
        milestones=path.milestones(index),
        earned={view.model.model_id: earned for view in views if (earned := view.earned(index)) is not None},
        left_out={
            view.model.model_id: reason_against(touch, path.at, view.model.lookback) or "before_previous_conversion"
            for view in views
            if index < view.left_out
        },
    )


def _against(touches: Iterable[Touch], at: datetime, reach: timedelta | None) -> list[NotCounted]:
    return [
        _not_counted(touch, reason) for touch in touches if (reason := reason_against(touch, at, reach)) is not None
    ]


def _not_counted(touch: Touch, reason: Reason, owner: LeadId | None = None) -> NotCounted:
    return NotCounted(
        touch_id=touch.touch_id,
        origin=touch.origin,
        type=touch.type,
        channel=touch.channel,
        occurred_at=touch.occurred_at,
        received_at=touch.received_at,
        reason=reason,
        automated_reason=touch.automated_reason,
        lead_id=owner,
    )


def _days(lookback: timedelta | None) -> float | None:
    return None if lookback is None else lookback / timedelta(days=1)
