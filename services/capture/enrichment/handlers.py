"""Leads enriched: providers asked one after another, each for what is still missing, and what they said told.

Whose turn it is stands in a table, so that no turn is lost with a process. A turn is held for as long as a call may
take; if its process dies, another one takes it up, and at most one call is made twice.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import asyncpg
from pydantic import ValidationError

from services.capture.consent.queries import consents_of
from services.capture.enrichment import queries
from services.capture.enrichment.asking import NoCredential, Prepared, Said, ask, hashed, prepare
from services.capture.enrichment.calling import CompiledProviders, account, mapped_answer, opened, take_permit
from services.capture.enrichment.document import Provider
from services.capture.enrichment.domain import (
    ANSWERED,
    GIVE_UP_AFTER,
    LONGEST_PAUSE,
    Ask,
    Mapped,
    NotBefore,
    findings,
    is_settled,
    lead_of,
    retry_after,
    wanted_fields,
)
from services.capture.enrichment.queries import Usage
from services.capture.enrichment.templates import Absent, known_places
from services.capture.leads import queries as leads
from services.capture.leads.changes import Change, tell_changes
from services.capture.leads.domain import Profile, Statements, profile_of, together
from services.capture.leads.handlers import person_since
from services.capture.leads.queries import Family
from services.capture.leads.telling import Cause
from shared.consents import Standing, latest_consents, marketing_words
from shared.db import Connection
from shared.errors import Rejected
from shared.events import ConsentChannel
from shared.faults import failpoint
from shared.ids import LeadId, new_id
from shared.outbound import Outbound
from shared.service import Runtime
from shared.telemetry import log

AT_ONCE = 20
HELD_FOR = timedelta(seconds=45)
MOST_TURNS = 50  # a lead whose turn never ends well is left alone


class TurnLost(Exception):
    """Somebody else is at it, or there is nobody any more to enrich."""


@dataclass(frozen=True, slots=True)
class Person:
    """The person whose turn it is, as they stand."""

    lead_id: LeadId
    statements: Statements
    profile: Profile
    consent: Mapping[ConsentChannel, Standing]

    @property
    def lead(self) -> dict[str, Any]:
        """As expressions see them."""
        return lead_of(self.profile, self.consent)

    @property
    def places(self) -> dict[str, str]:
        """What can stand in the places of requests."""
        return known_places(self.lead_id, self.profile)


class Enriching:
    """Takes the turns that are due."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._compiled = CompiledProviders(runtime)

    async def run(self) -> timedelta | None:
        """Enrich who is due; answers how long until the next one."""
        runtime = self._runtime
        if rows := await self._claimed():
            async with Outbound.of(runtime.settings) as outbound:
                while rows and await self._round(rows, outbound):
                    rows = await self._claimed()
        async with runtime.database.reading() as connection:
            due: datetime | None = await connection.fetchval(queries.NEXT_DUE)
        return None if due is None else max(due - runtime.clock.now(), timedelta(milliseconds=50))

    async def _round(self, rows: Sequence[asyncpg.Record], outbound: Outbound) -> bool:
        """Take some turns at once; answers whether to go on with those behind them."""
        round_ = _Round(await self._providers(), outbound, {})
        turns = [_Turn(row, round_, self._runtime) for row in rows]
        ended = await asyncio.gather(*(turn.take() for turn in turns), return_exceptions=True)
        for failure in ended:
            if isinstance(failure, BaseException):
                raise failure
        return len(rows) == AT_ONCE and not any(turn.in_turn for turn in turns)

    async def drop_old(self) -> timedelta | None:
        """Forget answers that are good no more."""
        async with self._runtime.database.reading() as connection:
            await queries.drop_old(connection, self._runtime.clock.now())
        return None

    async def _claimed(self) -> list[asyncpg.Record]:
        now = self._runtime.clock.now()
        async with self._runtime.database.reading() as connection:
            return await connection.fetch(queries.CLAIM, now, AT_ONCE, new_id(), now + HELD_FOR)

    async def _providers(self) -> list[tuple[Provider, str | None]]:
        """Those that are active in the order of asking, with what opens their credentials."""
        async with self._runtime.database.reading() as connection:
            rows = await queries.providers(connection, active=True)
        found = []
        for row in rows:
            try:
                provider = self._compiled.of(row)
            except (Rejected, ValidationError):
                log.warning("enrichment_provider_unusable", provider=row["provider_id"], version=row["version"])
                continue
            found.append((provider, opened(row, self._runtime)))
        return sorted(found, key=lambda each: (each[0].document.order, each[0].provider_id))


@dataclass(frozen=True, slots=True)
class _Round:
    """What the turns of one round share: providers in order with their credentials, and who asks for which answer."""

    providers: Sequence[tuple[Provider, str | None]]
    outbound: Outbound
    asking: dict[tuple[str, str], asyncio.Lock]


class _Turn:
    """One lead and all providers, in order."""

    def __init__(self, row: asyncpg.Record, round_: "_Round", runtime: Runtime) -> None:
        self._lead_id = LeadId(row["lead_id"])
        self._row = row
        self._round = round_
        self._runtime = runtime
        self._secret = runtime.secrets.derive("enrichment")
        self._asks: dict[str, Ask] = {}
        self.in_turn = False

    async def take(self) -> None:
        """Ask who is to be asked, and say when it goes on."""
        next_at = None
        with suppress(TurnLost):
            person = await self._person()
            async with self._runtime.database.reading() as connection:
                self._asks = await queries.asks_of(connection, [self._lead_id])
            if self._row["tries"] <= MOST_TURNS:
                next_at = await self._waterfall(person)
        async with self._runtime.database.reading() as connection:
            now = self._runtime.clock.now()
            await queries.finish(
                connection,
                self._lead_id,
                self._row["claim"],
                self._row["wanted"],
                next_at,
                now,
                keep_forced=self.in_turn,
            )

    async def _waterfall(self, person: Person) -> datetime | None:
        moments: list[datetime] = []
        for provider, credential in self._round.providers:
            person = await self._step(person, provider, credential)
            now = self._runtime.clock.now()
            result = self._asks.get(provider.provider_id)
            if result is not None and result.retry_at is not None and wanted_fields(provider, person.statements):
                moments.append(result.retry_at)
            elif result is not None and result.until is not None and provider.document.refresh and result.until > now:
                moments.append(result.until)
            if self.in_turn:
                break
            stop = provider.document.stop_when
            if stop and all(_has(person.profile, name) for name in stop):
                break
        return min(moments, default=None)

    async def _step(self, person: Person, provider: Provider, credential: str | None) -> Person:
        """Ask one provider, if there is something to ask it for; answers the person as they stand then."""
        now = self._runtime.clock.now()
        wanted = wanted_fields(provider, person.statements)
        if not wanted:
            return await self._skipped(person, provider, "nothing is missing that it is asked for")
        if provider.when is not None:
            holds, why = provider.when.holds({"lead": person.lead})
            if not holds:
                return await self._skipped(person, provider, f"when: {why}")
        try:
            prepared = prepare(provider, person.places, credential)
        except Absent as exc:
            return await self._skipped(person, provider, f"the lead has no {exc}")
        except NoCredential:
            return await self._skipped(person, provider, "it has no credential; set one")
        sent = hashed(self._secret, provider.provider_id, prepared.sent)
        before = self._asks.get(provider.provider_id)
        if is_settled(before, sent, provider, self._row["forced_at"], now):
            return person
        base = Ask(
            provider_id=provider.provider_id,
            outcome="waiting",
            detail=None,
            fields=wanted,
            version=provider.version,
            input=sent,
            tries=before.tries if before and before.input == sent and before.outcome not in ANSWERED else 0,
            asked_at=now,
        )
        if provider.document.cache is None:
            return await self._call(person, provider, prepared, base)
        # Of many leads of one company at once, the first one asks and the others have its answer.
        async with self._round.asking.setdefault((provider.provider_id, prepared.kept_by), asyncio.Lock()):
            kept = await self._kept_answer(provider, prepared)
            if kept is None:
                return await self._call(person, provider, prepared, base)
        said, at = kept
        return await self._save(person, provider, replace(base, asked_at=at), said, None, at)

    async def _call(self, person: Person, provider: Provider, prepared: Prepared, base: Ask) -> Person:
        async with self._runtime.database.reading() as connection:
            await self._keep_turn(connection, provider.document.timeout_s)
        decision = await take_permit(provider, self._runtime)
        if isinstance(decision, NotBefore):
            self.in_turn = decision.in_turn
            await self._note(replace(base, detail=decision.why, retry_at=decision.at))
            return person
        pause = decision.at - self._runtime.clock.now()
        if pause > timedelta():
            await asyncio.sleep(pause.total_seconds())
        failpoint("enrichment_before_call")
        said = await ask(provider, prepared, self._round.outbound)
        failpoint("enrichment_after_call")
        await account(provider, said, self._runtime)
        now = self._runtime.clock.now()
        if said.kind == "failure":
            await self._note(_failed(base, said, now))
            return person
        return await self._save(person, provider, replace(base, asked_at=now), said, prepared, now)

    async def _save(  # noqa: PLR0913  # who said what about whom
        self, person: Person, provider: Provider, base: Ask, said: Said, prepared: Prepared | None, at: datetime
    ) -> Person:
        """Keep what a provider said, and tell the profile if it is another one now. Raises TurnLost."""
        answer = mapped_answer(provider, said, person.lead)
        days = provider.document.cache.days if provider.document.cache else None
        until = at + timedelta(days=days) if days is not None else None
        outcome = "found" if answer.values else "nothing"
        result = replace(base, outcome=outcome, until=until, tries=0, detail=_problems(answer))
        try:
            person = await self._told(person, provider, answer, result, at)
        except Rejected as exc:
            await self._note(replace(base, outcome="failed", detail=f"{exc.slug}: {exc.detail}"[:300]))
            return person
        self._asks[provider.provider_id] = result
        failpoint("enrichment_after_telling")
        if prepared is not None and until is not None:
            await self._keep_answer(provider, prepared, said, at, until)
        return person

    async def _told(self, person: Person, provider: Provider, answer: Mapped, result: Ask, at: datetime) -> Person:
        async with self._runtime.database.transaction() as tx:
            # The lead first and then its turn, as whoever tells something about the lead takes them.
            if not await leads.lock_roots(tx.connection, [self._lead_id]):
                raise TurnLost
            await self._keep_turn(tx.connection)
            family = (await leads.families_of(tx.connection, self._runtime.keys, [self._lead_id]))[self._lead_id]
            if family.root.erased_at is not None:
                raise TurnLost
            now = self._runtime.clock.now()
            root = family.root
            known = _statements(family)
            found = {**root.statements, **findings(provider, answer, wanted_fields(provider, known), known, at)}
            rows = {row.lead_id: row.statements for row in family.rows} | {root.lead_id: found}
            statements = together(rows.items())
            off = self._runtime.settings.enrichment_off
            before, profile = profile_of(known, off), profile_of(statements, off)
            if found != root.statements:
                revision = root.revision + (profile != before)
                await leads.save_lead(tx, self._runtime.keys, root.lead_id, found, root.captured_at, revision, now)
                if profile != before:
                    change = Change(
                        lead_id=root.lead_id,
                        made_from=root.made_from,
                        revision=revision,
                        before=before,
                        profile=profile,
                        captured_at=person_since(family.rows),
                        cause=Cause(provider.origin, now, now),
                    )
                    await tell_changes([change], tx, self._runtime)
            await queries.save_ask(tx.connection, self._lead_id, result)
        return replace(person, statements=statements, profile=profile)

    async def _person(self) -> Person:
        """Whose turn it is. Raises TurnLost if they were erased, or merged into somebody whose turn will come."""
        async with self._runtime.database.reading() as connection:
            if await leads.root_of(connection, self._lead_id) != self._lead_id:
                raise TurnLost
            family = (await leads.families_of(connection, self._runtime.keys, [self._lead_id])).get(self._lead_id)
            if family is None or family.root.erased_at is not None or family.root.revision == 0:
                raise TurnLost
            consents = await consents_of(connection, sorted(family.members))
        statements = _statements(family)
        profile = profile_of(statements, self._runtime.settings.enrichment_off)
        return Person(self._lead_id, statements, profile, marketing_words(latest_consents(consents)))

    async def _keep_turn(self, connection: Connection, timeout_s: float = 0.0) -> None:
        """Keep the turn for as long as a call may take. Raises TurnLost."""
        until = self._runtime.clock.now() + HELD_FOR + timedelta(seconds=timeout_s)
        if await connection.fetchval(queries.HOLD, self._lead_id, self._row["claim"], until) is None:
            raise TurnLost

    async def _skipped(self, person: Person, provider: Provider, why: str) -> Person:
        """Write down why a provider was not asked, unless there is an answer of it to show."""
        before = self._asks.get(provider.provider_id)
        if before is None or (before.outcome not in ANSWERED and (before.outcome, before.detail) != ("skipped", why)):
            now = self._runtime.clock.now()
            await self._note(Ask(provider.provider_id, "skipped", why[:300], (), provider.version, None, 0, now))
        return person

    async def _note(self, result: Ask) -> None:
        self._asks[result.provider_id] = result
        async with self._runtime.database.transaction() as tx:
            await self._keep_turn(tx.connection)
            await queries.save_ask(tx.connection, self._lead_id, result)

    async def _kept_answer(self, provider: Provider, prepared: Prepared) -> tuple[Said, datetime] | None:
        """An answer of before that is still good. One that was asked for anew is not looked for."""
        key = hashed(self._secret, provider.provider_id, prepared.kept_by)
        now = self._runtime.clock.now()
        async with self._runtime.database.reading() as connection:
            row = await connection.fetchrow(queries.ANSWER, provider.provider_id, key, now)
            if row is None or (self._row["forced_at"] and row["answered_at"] <= self._row["forced_at"]):
                return None
            await queries.add_usage(connection, provider.provider_id, now.date(), Usage(cache_hits=1))
        content = self._runtime.keys.open_request(row["sealed"], _label(provider, key))
        said = Said("data" if content["data"] else "nothing", int(str(content["status"])), content["response"])
        return said, row["answered_at"]

    async def _keep_answer(
        self, provider: Provider, prepared: Prepared, said: Said, at: datetime, until: datetime
    ) -> None:
        """Keep an answer, sealed; one about a person only as long as they are not erased."""
        key = hashed(self._secret, provider.provider_id, prepared.kept_by)
        content = {"data": said.kind == "data", "status": said.status, "response": said.response}
        sealed = self._runtime.keys.seal_request(content, _label(provider, key))
        about = self._lead_id if provider.personal else None
        async with self._runtime.database.transaction() as tx:
            if not await leads.lock_roots(tx.connection, [self._lead_id]):
                return
            family = (await leads.families_of(tx.connection, self._runtime.keys, [self._lead_id]))[self._lead_id]
            if family.root.erased_at is None:
                await tx.connection.execute(queries.SAVE_ANSWER, provider.provider_id, key, sealed, about, at, until)


def _failed(base: Ask, said: Said, now: datetime) -> Ask:
    tries = base.tries + 1
    if said.final or tries >= GIVE_UP_AFTER:
        return replace(base, outcome="failed", detail=said.detail, tries=tries, asked_at=now)
    pause = min(
        retry_after(base.tries, said.retry_after_s), max(LONGEST_PAUSE, timedelta(seconds=said.retry_after_s or 0))
    )
    return replace(base, outcome="failed", detail=said.detail, tries=tries, asked_at=now, retry_at=now + pause)


def _problems(answer: Mapped) -> str | None:
    written = "; ".join(f"{name}: {why}" for name, why in sorted(answer.problems.items()))
    return written[:300] or None


def _statements(family: Family) -> dict[str, Any]:
    return together((row.lead_id, row.statements) for row in family.rows)


def _has(profile: Profile, name: str) -> bool:
    if name.startswith("attributes."):
        return name.removeprefix("attributes.") in {**profile.derived, **profile.attributes}
    return getattr(profile, name) is not None


def _label(provider: Provider, key: str) -> str:
    return f"enrichment/{provider.provider_id}/{key}"
