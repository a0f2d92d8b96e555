"""A look at runs that are due and all that decides about them: a handful of statements, however many runs."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.nurture.experiments import handlers as experiments
from services.nurture.explaining.domain import Answer, Basis, names_of_checks
from services.nurture.parts import Parts
from services.nurture.people import queries as people
from services.nurture.people.domain import Person
from services.nurture.sending import queries
from services.nurture.sending.checks import Check, Looked, Question
from services.nurture.sending.domain import Deliver, NextAct, Readiness, next_act
from services.nurture.sending.turns import Due
from services.nurture.sequences.domain import Plan, SendStep
from shared.db import Connection
from shared.events import ConsentChannel
from shared.identity import resolve_many
from shared.ids import LeadId, SequenceId

NO_PROVIDER = "no SMTP_URL is set"
MISSING: Mapping[ConsentChannel, str] = {
    "email": NO_PROVIDER,
    "sms": "no NURTURE_TWILIO_ACCOUNT_SID with NURTURE_TWILIO_SMS_FROM is set",
    "whatsapp": "neither NURTURE_WHATSAPP_TOKEN nor NURTURE_TWILIO_WHATSAPP_FROM is set",
}
"""Why nothing leaves by a channel that no provider is set up for."""
STALE_CONSENT = "what people consent to is not known to be fresh"
STALE_LEDGER = "what was sent already is not known to be fresh"


@dataclass(frozen=True, slots=True)
class Look:
    """A due run with all that decides about it."""

    due: Due
    plan: Plan
    person: Person
    act: NextAct
    now: datetime
    asked: Sequence[tuple[str, Answer]] = ()

    def basis(self, step: SendStep) -> Basis:
        """What is kept of it, to explain the decision about a message."""
        return Basis(self.plan, step, self.person, self.now, self.asked)


class Lookout:
    """Looks at runs that are due, and at what must be so before anything is sent."""

    def __init__(self, parts: Parts, channels: frozenset[ConsentChannel], checks: Sequence[Check]) -> None:
        self._parts = parts
        self._channels = channels
        self._checks = checks
        self.connected_since: float | None = None

    async def look(
        self, connection: Connection, dues: Sequence[Due], locked: Mapping[LeadId, LeadId] | None = None
    ) -> list[Look]:
        """What is to be done about each run; where the persons behind their ids are locked, what is done."""
        parts = self._parts
        owners = await _owners(connection, dues) if locked is None else locked
        families = await people.load_families(connection, {owners[due.run.lead_id] for due in dues})
        persons = await people.load_persons(connection, parts.addresses, parts.runtime.keys, list(families), families)
        facts = await people.milestones_of(connection, families, min(due.run.triggered_at for due in dues))
        readiness = await self.readiness(connection)
        now = await queries.database_now(connection)
        live: dict[SequenceId, bool] = {}
        looked = Looked(families)
        decided: list[tuple[Due, Plan, Person, NextAct]] = []
        questions: dict[str, Question] = {}
        for due in dues:
            run, person = due.run, persons[owners[due.run.lead_id]]
            plan = await parts.catalogue.plan(connection, run.sequence_id, run.version)
            plan = await experiments.plan_for(connection, plan, person)
            if run.sequence_id not in live:
                live[run.sequence_id] = await parts.catalogue.live(connection, run.sequence_id)
            since = [fact for fact in facts[person.person_id] if fact.occurred_at >= run.triggered_at]
            act = next_act(
                plan, run, due.step_id, person, since, readiness, live=live[run.sequence_id], now=now, since=due.since
            )
            decided.append((due, plan, person, act))
            if isinstance(act, Deliver):
                family, claiming = families[person.person_id], locked is not None
                questions[run.enrolment_id] = Question(
                    connection, parts, plan, run, act.step, person, family, now, claiming=claiming, looked=looked
                )
        asked = dict(zip(questions, await self.asked(list(questions.values())), strict=True))
        return [
            _look(due, plan, person, act, now, asked.get(due.run.enrolment_id, ()))
            for due, plan, person, act in decided
        ]

    async def objection(self, question: Question) -> Answer:
        """The first objection to a message, if there is any."""
        (asked,) = await self.asked([question])
        return asked[-1][1] if asked else None

    async def asked(self, questions: Sequence[Question]) -> list[list[tuple[str, Answer]]]:
        """The checks of messages looked at together, of each up to the first that objects, with what each says."""
        asked: list[list[tuple[str, Answer]]] = [[] for _ in questions]
        still = list(range(len(questions)))
        for name, check in zip(names_of_checks(self._checks), self._checks, strict=True):
            if still:
                questions[0].looked.open[:] = [questions[place] for place in still]
            for place in still:
                asked[place].append((name, await check(questions[place])))
            still = [place for place in still if asked[place][-1][1] is None]
        return asked

    async def readiness(self, connection: Connection) -> Readiness:
        """What is missing before anything is sent.

        Freshness counts from when we have been connected: a database that comes back may be an earlier copy.
        """
        runtime = self._parts.runtime
        since = self.connected_since if self.connected_since is not None else time.monotonic()
        within = min(runtime.settings.fresh_within, timedelta(seconds=time.monotonic() - since))
        consent = await runtime.feeds.fresh(connection, "leads", within)
        ledger = await runtime.feeds.fresh(connection, "messages", within)
        return Readiness(
            missing={channel: why for channel, why in MISSING.items() if channel not in self._channels},
            consent=None if consent else STALE_CONSENT,
            ledger=None if ledger else STALE_LEDGER,
        )


def _look(  # noqa: PLR0913  # a look names what it saw
    due: Due, plan: Plan, person: Person, act: NextAct, now: datetime, asked: Sequence[tuple[str, Answer]]
) -> Look:
    """A look at a run; the first objection, if any, is what is done instead."""
    return Look(due, plan, person, next((said for _, said in asked if said is not None), act), now, asked)


async def _owners(connection: Connection, dues: Sequence[Due]) -> dict[LeadId, LeadId]:
    ids = sorted({due.run.lead_id for due in dues})
    return dict(zip(ids, await resolve_many(connection, [(lead_id, None) for lead_id in ids]), strict=True))
