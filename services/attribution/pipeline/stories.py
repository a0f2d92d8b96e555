"""The stories of persons, put together from what is stored of all their ids."""

import asyncpg

from services.attribution.channels.domain import NOT_SET
from services.attribution.conversions.queries import conversions_of_people
from services.attribution.domain import Profile
from services.attribution.journeys.queries import profiles
from services.attribution.pipeline import queries
from services.attribution.pipeline.domain import Assigned, Circumstances, DealStep, Owner, Payment, Story
from services.attribution.pipeline.queries import People, rows_of
from shared.db import Connection
from shared.ids import DealId, LeadId


async def stories_of(connection: Connection, people: People) -> dict[LeadId, Story]:
    """The story of each person; of some there is nothing to tell."""
    profile_of = await profiles(connection, people)
    stages = await rows_of(connection, queries.FIRST_ENTERED, people)
    assigned = await rows_of(connection, queries.ASSIGNED, people)
    contacts = await rows_of(connection, queries.CONTACTED, people)
    first = await rows_of(connection, queries.FIRST_TOUCHES, people)
    erased = await rows_of(connection, queries.ERASED, people)
    steps = await rows_of(connection, queries.DEAL_STEPS, people)
    payments = await conversions_of_people(connection, people)
    stories: dict[LeadId, Story] = {}
    for person in people:
        profile = profile_of.get(person)
        deals: dict[DealId, list[DealStep]] = {}
        for row in steps.get(person, ()):
            deals.setdefault(row["deal_id"], []).append(_step(row))
        stories[person] = Story(
            circumstances=_circumstances(first.get(person, ()), profile),
            captured_at=profile.created_at if profile else None,
            erased=person in erased,
            stages={row["stage"]: row["at"] for row in stages.get(person, ())},
            assignments=[_assigned(row) for row in assigned.get(person, ())],
            contacts=[row["at"] for row in contacts.get(person, ())],
            deals=deals,
            payments=[
                Payment(one.conversion_id, one.occurred_at, one.value_minor, one.currency, one.deal_id)
                for one in payments.get(person, ())
            ],
        )
    return stories


def _circumstances(first: "list[asyncpg.Record] | tuple[()]", profile: Profile | None) -> Circumstances:
    touched = {name: first[0][name] or NOT_SET for name in ("channel", "source", "campaign")} if first else {}
    country, account = (profile.country, profile.account) if profile else (None, None)
    return Circumstances(**touched, country=country or NOT_SET, account=account or NOT_SET)


def _assigned(row: asyncpg.Record) -> Assigned:
    return Assigned(
        assignment_id=row["assignment_id"],
        at=row["assigned_at"],
        owner=Owner(row["rep_id"], _teams(row)),
        revision=row["revision"],
        due_at=row["due_at"],
        accepted_at=row["accepted_at"],
        rejected_at=row["rejected_at"],
        expired_at=row["expired_at"],
    )


def _teams(row: asyncpg.Record) -> tuple[str, ...]:
    return tuple(sorted(set(row["teams"])))


def _step(row: asyncpg.Record) -> DealStep:
    return DealStep(
        revision=row["revision"],
        at=row["at"],
        status=row["status"],
        stage=row["stage"],
        probability=row["probability"],
        value_minor=row["value_minor"],
        currency=row["currency"],
        opened_at=row["opened_at"],
        recurring_minor=row["recurring_minor"],
        owner=Owner(row["rep_id"] or NOT_SET, _teams(row)),
        closed_at=row["closed_at"],
        pipeline_stages=tuple(row["pipeline_stages"]),
        begins=row["begins"],
    )
