"""Scores of accounts over HTTP, with the people that make them up."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel

from services.scoring.accounts import queries
from services.scoring.accounts.domain import AccountRules, Way
from services.scoring.accounts.handlers import Scored, score_accounts
from services.scoring.errors import NoSuchAccount
from services.scoring.parts import Parts
from services.scoring.people.beside import rules_of_rows
from services.scoring.stages.queries import load_stood
from shared.db import Connection
from shared.events import Grade, Stage
from shared.ids import AccountId, LeadId
from shared.service import Runtime
from shared.web import Endpoints, Limit, Page, make_cursor, read_cursor, requires

MOST = 200
AccountIdParam = Annotated[str, Path(pattern=r"^[\x21-\x7e]{1,200}$")]


class PersonOut(BaseModel):
    """A person of the account: how engaged, and what of that counts for the account. An excluded one gives nothing."""

    lead_id: LeadId
    account_id: AccountId
    engagement: float
    contributes: float
    engaged: bool
    fit: int
    grade: Grade
    stage: Stage


class OtherPeople(BaseModel):
    """People too many to list: how many, and what they contribute together."""

    count: int
    contributes: float


class FitPart(BaseModel):
    """A fit rule that the account's own fields meet."""

    rule_id: str
    points: int


class RulesOut(BaseModel):
    """How the people are added up; see the scoring document's `account`."""

    engagement: Way
    top: int | None
    limit: int
    engaged_from: float
    min_people: int
    children: bool


class AccountScoreOut(BaseModel):
    """An account's score at the moment of the call.

    `accounts` are those whose people count: itself, those merged into it, and those below. `fit_from` is the person
    whose fit is the account's; null when that follows from its own fields, by `own_fit`.
    """

    account_id: AccountId
    engagement: float
    fit: int
    total: float
    grade: Grade
    people: int
    engaged_people: int
    enough_people: bool
    rules_version: int
    rules: RulesOut
    contributions: list[PersonOut]
    other_people: OtherPeople
    fit_from: LeadId | None
    own_fit: list[FitPart]
    accounts: list[AccountId]
    as_of: datetime


class AccountListed(BaseModel):
    """An account as it was told last, exact at `as_of`; decay is told when it changes the whole number of the total."""

    account_id: AccountId
    engagement: float
    fit: int
    total: float
    grade: Grade
    people: int
    engaged_people: int
    rules_version: int
    as_of: datetime


def accounts_router(runtime: Runtime, parts: Parts) -> APIRouter:
    """Scores of accounts."""
    database = runtime.database
    router = Endpoints(prefix="/v1/accounts", tags=["accounts"], dependencies=[Depends(requires("scoring:read"))])

    @router.get("")
    async def accounts(limit: Limit = 50, cursor: str | None = None) -> Page[AccountListed]:
        """All accounts, the highest total first."""
        place = read_cursor(runtime.secrets, "account-scores", cursor)
        after = (float(place[0]), str(place[1])) if place else None
        async with database.reading() as connection:
            rows = await queries.listed(connection, after, limit + 1)
        last = rows[limit - 1] if len(rows) > limit else None
        more = make_cursor(runtime.secrets, "account-scores", [last["total"], last["account_id"]]) if last else None
        return Page(items=[AccountListed(**dict(row), as_of=row["at"]) for row in rows[:limit]], next_cursor=more)

    @router.get("/{account_id}")
    async def account(account_id: AccountIdParam) -> AccountScoreOut:
        """An account's score at this moment, and what each of its people gives to it."""
        async with database.reading() as connection, connection.transaction(readonly=True):
            return await explained_account(connection, parts, AccountId(account_id))

    return router


async def explained_account(connection: Connection, parts: Parts, named: AccountId) -> AccountScoreOut:
    """The score of the account that an id stands for by now. Raises NoSuchAccount. Needs a transaction."""
    account_id = await queries.survivor_of(connection, named)
    rules, now = await rules_of_rows(connection, parts), await parts.present(connection)
    scored = (await score_accounts(connection, parts, rules, [account_id], now))[account_id]
    if not scored.known and not scored.score.given:
        raise NoSuchAccount(f"nothing was told here about an account {named[:100]}")
    shown = [member.person_id for member, _ in scored.score.given[:MOST]]
    stood = await load_stood(connection, shown)
    stages = {person_id: one.verdict.stage for person_id, one in stood.items()}
    return _out(account_id, scored, rules.accounts, rules.version, stages)


def _out(
    account_id: AccountId, scored: Scored, rules: AccountRules, version: int, stages: dict[LeadId, Stage]
) -> AccountScoreOut:
    score = scored.score
    rest = score.given[MOST:]
    return AccountScoreOut(
        account_id=account_id,
        engagement=score.engagement,
        fit=score.fit.points,
        total=score.total,
        grade=score.fit.grade,
        people=len(score.given),
        engaged_people=score.engaged_people,
        enough_people=score.enough_people,
        rules_version=version,
        rules=RulesOut(
            engagement=rules.engagement,
            top=rules.most,
            limit=rules.limit,
            engaged_from=rules.engaged_from,
            min_people=rules.min_people,
            children=rules.children,
        ),
        contributions=[
            PersonOut(
                lead_id=member.person_id,
                account_id=member.account_id,
                engagement=member.engagement,
                contributes=points,
                engaged=member.counts and member.engagement >= rules.engaged_from,
                fit=member.fit.points,
                grade=member.fit.grade,
                stage=stages.get(member.person_id, "subscriber"),
            )
            for member, points in score.given[:MOST]
        ],
        other_people=OtherPeople(count=len(rest), contributes=round(sum(points for _, points in rest), 6)),
        fit_from=score.fit_from,
        own_fit=[FitPart(rule_id=rule_id, points=points) for rule_id, points in score.own_fit.rules],
        accounts=list(scored.family[:MOST]),
        as_of=score.at,
    )
