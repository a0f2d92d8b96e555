"""People who may be one: found by what they share, compared, suggested, dismissed. Nothing is ever merged here."""

import hmac
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import chain

from services.capture.duplicates import queries
from services.capture.duplicates.domain import KEPT_FROM, Likeness, compare, keys_of
from services.capture.leads import queries as leads
from services.capture.leads.domain import Profile, are_told_apart, profile_of, together
from services.capture.leads.queries import Family
from shared.db import Connection
from shared.ids import LeadId
from shared.personal import PersonKeys
from shared.service import Runtime

AT_ONCE = 200
KEY_BYTES = 16
# Following a phone number to its time zone and an address to its company costs more than all of the comparing.
_NOT_COMPARED = frozenset({"phone", "email", "names", "titles"})


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Two persons, by the leads that stand for them, and how alike they are."""

    lead_id: LeadId
    other_id: LeadId
    likeness: Likeness
    profiles: tuple[Profile, Profile]


async def note_likeness(
    profiles: Mapping[LeadId, Profile], connection: Connection, runtime: Runtime, *, new: AbstractSet[LeadId]
) -> None:
    """Let people be found by what they are now, and have them compared in the background; `new` ones never were."""
    secret = runtime.secrets.likeness
    hashed = {
        lead_id: frozenset(hmac.digest(secret, key.encode(), "sha256")[:KEY_BYTES] for key in keys_of(profile))
        for lead_id, profile in profiles.items()
    }
    if added := {lead_id: keys for lead_id, keys in hashed.items() if lead_id in new}:
        await queries.add_keys(connection, added)
    if changed := {lead_id: keys for lead_id, keys in hashed.items() if lead_id not in new}:
        await queries.put_keys(connection, changed)


async def check_likenesses(runtime: Runtime) -> None:
    """Compare those whose profile changed with whoever shares a key, and keep the pairs. A batch is one transaction."""
    while True:
        async with runtime.database.reading() as connection:
            await queries.see_checks(connection, AT_ONCE)
        async with runtime.database.transaction() as tx:
            lead_ids = await queries.claim_checks(tx.connection, AT_ONCE)
            if lead_ids:
                found = await suggestions_of(tx.connection, lead_ids, runtime.keys)
                pairs = {(one.lead_id, one.other_id): one.likeness.score for one in found}
                await queries.forget_merged(tx.connection, lead_ids)
                await queries.put_pairs(tx.connection, lead_ids, pairs)
        if not lead_ids:
            return


async def suggestions_of(connection: Connection, lead_ids: Sequence[LeadId], keys: PersonKeys) -> list[Suggestion]:
    """Everybody that these people may be, from the least score that is kept; the likeliest first."""
    others = await queries.others_of(connection, lead_ids)
    pairs = {(min(one, other), max(one, other)) for one, theirs in others.items() for other in theirs}
    return sorted(
        await _compared(connection, pairs, keys), key=lambda one: (-one.likeness.score, one.lead_id, one.other_id)
    )


async def suggested(
    connection: Connection, keys: PersonKeys, min_score: int, after: tuple[int, str, str] | None, limit: int
) -> tuple[list[Suggestion], tuple[int, str, str] | None]:
    """One page of the pairs found, as they are now, and the place after it. Those that no longer hold are left out."""
    rows = await queries.best_pairs(connection, min_score, after, limit + 1)
    pairs = [(one, other) for one, other, _ in rows[:limit]]
    now = {(one.lead_id, one.other_id): one for one in await _compared(connection, pairs, keys)}
    found = [now[pair] for pair in pairs if pair in now and now[pair].likeness.score >= min_score]
    last = rows[limit - 1] if len(rows) > limit else None
    return found, (last[2], last[0], last[1]) if last else None


async def dismiss(connection: Connection, one: Family, other: Family) -> None:
    """Remember that two people are not the same. Both must be locked."""
    ids = (one.root.lead_id, other.root.lead_id)
    await leads.tell_apart(connection, *ids)
    await queries.forget_pair(connection, *ids)


async def _compared(
    connection: Connection, pairs: Iterable[tuple[LeadId, LeadId]], keys: PersonKeys
) -> list[Suggestion]:
    """The pairs that may be one person: both stand for somebody, whom nobody told apart."""
    wanted = list(pairs)
    families = await leads.families_of(connection, keys, sorted(set(chain(*wanted)))) if wanted else {}
    living = {lead_id: family for lead_id, family in families.items() if _stands_for_somebody(family)}
    members = sorted(chain(*(family.members for family in living.values())))
    apart = await leads.told_apart(connection, members) if members else frozenset()
    told = {
        lead_id: together((row.lead_id, row.statements) for row in family.rows) for lead_id, family in living.items()
    }
    compared = {lead_id: profile_of(statements, _NOT_COMPARED) for lead_id, statements in told.items()}
    found = []
    for one, other in wanted:
        if one not in living or other not in living:
            continue
        if are_told_apart(living[one].members, living[other].members, apart):
            continue
        likeness = compare(compared[one], compared[other])
        if likeness.score >= KEPT_FROM:
            found.append(Suggestion(one, other, likeness, (profile_of(told[one]), profile_of(told[other]))))
    return found


def _stands_for_somebody(family: Family) -> bool:
    return family.root.merged_into is None and family.root.erased_at is None and family.root.revision > 0
