"""Fold accounts, and score them when something about their people changed or decays. Never all of them at once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.scoring.accounts import queries
from services.scoring.accounts.domain import AccountScore, Company, Member, account_score, next_look
from services.scoring.accounts.queries import Standing
from services.scoring.parts import Parts
from services.scoring.people.beside import rules_of_rows
from services.scoring.people.queries import load_people
from services.scoring.rules.document import RuleSet
from shared.db import Connection, Database, Tx
from shared.events import AccountChanged, AccountScored
from shared.ids import AccountId, EventId, LeadId, derived_id
from shared.telemetry import counter

SCORED = counter("throughline_accounts_scored_total", "Accounts that were looked at because something changed")
PAGE = 50
MARKS = 1_000


@dataclass(frozen=True, slots=True)
class Scored:
    """An account's score, and the accounts whose people make it up. `known` is false of one nobody was told of."""

    score: AccountScore
    family: Sequence[AccountId]
    known: bool


async def on_accounts_changed(events: Sequence[AccountChanged], tx: Tx, *, parts: Parts) -> None:
    """Keep accounts: of each the newest."""
    newest = {event.account_id: event for event in sorted(events, key=lambda event: event.revision)}
    concerned = await queries.fold_accounts(tx.connection, [_company(event) for event in newest.values()])
    if parts.decides:
        await queries.mark_accounts(tx.connection, concerned)


async def settle_accounts(database: Database, parts: Parts) -> timedelta | None:
    """Score the accounts that were marked, those whose time has come, and those of other rules.

    Answers how long until the next one's time.
    """
    async with database.transaction() as tx:
        await queries.follow_projection(tx.connection)
    while True:
        async with database.transaction() as tx:
            marks = await queries.take_marks(tx.connection, MARKS)
            concerned = await queries.with_those_above(tx.connection, marks) if marks else set()
            due = await queries.claim_due(tx.connection, await parts.present(tx.connection), PAGE)
            rules = await rules_of_rows(tx.connection, parts)
            outdated = await queries.claim_outdated(tx.connection, rules.version, PAGE)
            ordered = sorted({*concerned, *due, *outdated})
            for start in range(0, len(ordered), PAGE):
                await _settle(tx, parts, rules, ordered[start : start + PAGE])
        SCORED.inc(len(ordered))
        if len(marks) < MARKS and len(due) < PAGE and len(outdated) < PAGE:
            break
    async with database.reading() as connection:
        at, now = await queries.next_due(connection), await parts.present(connection)
    return None if at is None else max(at - now, timedelta(milliseconds=10))


async def score_accounts(
    connection: Connection, parts: Parts, rules: RuleSet, account_ids: Sequence[AccountId], now: datetime
) -> dict[AccountId, Scored]:
    """What accounts come to at this moment, exactly."""
    families = await queries.families_of(connection, account_ids, children=rules.accounts.children)
    companies = await queries.companies_of(connection, account_ids)
    placed = await queries.people_of(connection, {one for family in families.values() for one in family})
    members = await _members(connection, parts, placed, now)
    scored = {}
    for account_id, family in families.items():
        theirs = [member for one in family for member in members.get(one, ())]
        company = companies.get(account_id)
        own_fit = rules.fit.judge(company.as_lead() if company else {})
        score = account_score(rules.accounts, theirs, own_fit, now)
        scored[account_id] = Scored(score, family, company is not None)
    return scored


async def _members(
    connection: Connection, parts: Parts, placed: Mapping[LeadId, AccountId], now: datetime
) -> dict[AccountId, list[Member]]:
    """Persons by their accounts, each valued by the rules that their row was made with."""
    members: dict[AccountId, list[Member]] = {}
    for person_id, person in (await load_people(connection, placed)).items():
        rules = await parts.rules.at_version(connection, person.rules_version)
        points = rules.engagement.value(person.engagement, now)
        member = Member(person_id, placed[person_id], points, person.fit, person.engagement)
        members.setdefault(member.account_id, []).append(member)
    return members


async def _settle(tx: Tx, parts: Parts, rules: RuleSet, account_ids: Sequence[AccountId]) -> None:
    """Score a page of accounts; tell of those whose whole points or grade changed."""
    stood = await queries.lock_standings(tx.connection, account_ids)
    now = await parts.present(tx.connection)
    merged = await _merged(tx.connection, account_ids)
    scored = await score_accounts(tx.connection, parts, rules, account_ids, now)
    saved, unknown = [], []
    for account_id in account_ids:
        before, found = stood[account_id], scored[account_id]
        gone = account_id in merged or not (found.known or found.score.given)
        if gone and before.total is None:
            unknown.append(account_id)
            continue
        after = _gone(before, rules, now) if gone else _standing(before, found.score, rules)
        if _told(before) != _told(after):
            after = replace(after, revision=before.revision + 1)
            tx.emit(_fact(after, rules, now))
        saved.append(after)
    await queries.save_standings(tx.connection, saved)
    await queries.forget_standings(tx.connection, [one for one in unknown if not stood[one].revision])


async def _merged(connection: Connection, account_ids: Iterable[AccountId]) -> set[AccountId]:
    companies = await queries.companies_of(connection, account_ids)
    return {account_id for account_id, company in companies.items() if company.merged_into is not None}


def _standing(before: Standing, score: AccountScore, rules: RuleSet) -> Standing:
    return Standing(
        account_id=before.account_id,
        revision=before.revision,
        engagement=score.engagement,
        fit=score.fit.points,
        total=score.total,
        grade=score.fit.grade,
        people=len(score.given),
        engaged_people=score.engaged_people,
        rules_version=rules.version,
        at=score.at,
        due_at=next_look(rules.accounts, score),
    )


def _gone(before: Standing, rules: RuleSet, now: datetime) -> Standing:
    """An account that is another one by now, or nobody's."""
    return Standing(before.account_id, before.revision, rules_version=rules.version, at=now)


def _told(standing: Standing) -> tuple[int, str] | None:
    if standing.total is None or standing.grade is None:
        return None
    return round(standing.total), standing.grade


def _fact(standing: Standing, rules: RuleSet, now: datetime) -> AccountScored:
    return AccountScored(
        event_id=EventId(derived_id("scoring", "account", standing.account_id, str(standing.revision))),
        lead_id=LeadId(standing.account_id),
        occurred_at=now,
        received_at=now,
        account_id=standing.account_id,
        revision=standing.revision,
        engagement=standing.engagement or 0.0,
        fit=standing.fit or 0,
        total=standing.total or 0.0,
        grade=standing.grade or "D",
        people=standing.people or 0,
        engaged_people=standing.engaged_people or 0,
        rules_version=rules.version,
    )


def _company(event: AccountChanged) -> Company:
    return Company(
        account_id=event.account_id,
        revision=event.revision,
        parent_id=event.parent_id,
        merged_into=event.merged_into,
        industry=event.industry,
        employees=event.employees,
        annual_revenue=event.annual_revenue,
        country=event.country,
    )
