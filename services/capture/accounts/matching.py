"""Which account many leads belong to, in a few statements however many: read, decide, make what is missing, save."""

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime

from services.capture.accounts import queries, standings
from services.capture.accounts.domain import (
    Account,
    Candidate,
    Clues,
    Match,
    Naming,
    Standing,
    by_domain,
    by_hand,
    by_name,
    changed_leads,
    has_name_and_site,
    is_close,
)
from services.capture.accounts.names import company_key
from services.capture.accounts.telling import account_drafts
from shared.db import Connection, Tx
from shared.ids import AccountId, LeadId, new_id
from shared.service import Runtime


@dataclass(frozen=True, slots=True)
class Named:
    """What accounts there are of a name, and of names that begin alike."""

    exact: Mapping[str, Sequence[Candidate]]
    near: Mapping[str, Sequence[Candidate]]

    def of(self, clues: Clues) -> list[Candidate]:
        """The candidates for somebody."""
        exact = self.exact.get(clues.name_key or "", ())
        return [*exact, *(() if exact else self.near.get(clues.name_begin or "", ()))]


async def attach_leads(
    clues: Mapping[LeadId, Clues], at: datetime, tx: Tx, runtime: Runtime, *, as_before: AbstractSet[LeadId]
) -> dict[LeadId, Match]:
    """Let leads belong to the account that their clues say, and tell why; the rows of the leads must be locked.

    Of those whose clues are `as_before` what was found for them holds: who changes an account asks again for them.
    """
    before, now = await match_leads(clues, at, tx, runtime, as_before=as_before)
    await standings.save(tx.connection, changed_leads(before, now), before)
    return {standing.lead_id: standing.match for standing in now}


async def match_leads(
    clues: Mapping[LeadId, Clues],
    at: datetime,
    tx: Tx,
    runtime: Runtime,
    *,
    as_before: AbstractSet[LeadId] = frozenset(),
) -> tuple[dict[LeadId, Standing], list[Standing]]:
    """How leads stand, and how they should. Accounts that their domains ask for are made and told."""
    connection = tx.connection
    before, choices = await standings.read(connection, list(clues))
    settled = {lead_id for lead_id in as_before if lead_id in before and before[lead_id].match.matched_by != "hand"}
    open_ones = {lead_id: clue for lead_id, clue in clues.items() if lead_id not in choices and lead_id not in settled}
    owners = await _owners(open_ones, at, tx, runtime)
    by_their_name = [clue for clue in open_ones.values() if clue.name_key and clue.domain not in owners]
    named = await candidates(connection, by_their_name)
    now = []
    for lead_id, clue in clues.items():
        if lead_id in choices:
            match = by_hand(choices[lead_id])
        elif lead_id in settled:
            match = before[lead_id].match
        elif clue.domain in owners:
            match = by_domain(owners[clue.domain], clue.domain)
        else:
            match = by_name(clue, named.of(clue)).match
        now.append(Standing(lead_id, match, clue.domain, clue.name_key))
    return before, now


async def candidates(connection: Connection, clues: Sequence[Clues]) -> Named:
    """The accounts that names could mean; close ones are only looked for where something could speak for them."""
    exact = await _exact(connection, clues)
    open_ones = [
        clue for clue in clues if clue.name_key not in exact and (clue.country or clue.phone_country or clue.domain)
    ]
    begins = {clue.name_begin for clue in open_ones if clue.name_begin}
    near = await queries.near_names(connection, sorted(begins)) if begins else {}
    close = {
        account_id: clue.name_begin
        for clue in open_ones
        for account_id, name_key in near.get(clue.name_begin or "", ())
        if is_close(clue.name_key or "", name_key)
    }
    found: dict[str, list[Candidate]] = {}
    for candidate in await queries.candidates_of(connection, list(close)) if close else ():
        found.setdefault(close[candidate.account_id] or "", []).append(candidate)
    return Named(exact, found)


async def _exact(connection: Connection, clues: Iterable[Clues]) -> dict[str, list[Candidate]]:
    keys = {clue.name_key for clue in clues if clue.name_key}
    return await queries.named_accounts(connection, sorted(keys)) if keys else {}


async def preview(connection: Connection, clues: Clues) -> tuple[Naming, bool]:
    """What matching says about somebody, without effect, and whether an account would be made."""
    naming = by_name(clues, (named := await candidates(connection, [clues])).of(clues))
    if clues.domain is None:
        return naming, False
    for row in await queries.domain_owners(connection, [clues.domain]):
        owner = AccountId(row["account_id"])
        match = by_domain(owner, clues.domain)
        left_out = tuple(
            replace(one, kept=False, why=f"{one.why}, but the domain decides")
            for one in naming.weighed
            if one.candidate.account_id != owner
        )
        return Naming(match, left_out, "domain" if left_out else None), False
    site = has_name_and_site(clues, named.of(clues))
    if site is not None:
        reason = f"{clues.name!r} is its name, and {clues.domain} is named like it; it gets this domain"
        return replace(naming, match=Match(site.account_id, "domain", reason)), False
    why = f"no account has {clues.domain}; one is made for it"
    left_out = tuple(replace(one, kept=False, why=f"{one.why}, but the domain is another") for one in naming.weighed)
    return Naming(Match(None, "domain", why), left_out), True


async def _owners(clues: Mapping[LeadId, Clues], at: datetime, tx: Tx, runtime: Runtime) -> dict[str, AccountId]:
    """The accounts of the domains; those that nobody has get one. An account only known by its domain gets a name."""
    names: dict[str, Clues] = {}
    for clue in clues.values():
        if clue.domain and (clue.domain not in names or not names[clue.domain].name_key):
            names[clue.domain] = clue
    if not names:
        return {}
    connection = tx.connection
    rows = await standings.owners(connection, sorted(names))
    owners = {row["domain"]: AccountId(row["account_id"]) for row in rows}
    nameless = {
        AccountId(row["account_id"]): names[row["domain"]]
        for row in rows
        if row["is_nameless"] and names[row["domain"]].name_key
    }
    missing = {domain: clue for domain, clue in names.items() if domain not in owners}
    touched: list[AccountId] = []
    if missing:
        made, taken = await _make(missing, connection)
        owners |= made
        touched += taken
    if nameless:
        await queries.rename(
            connection, {one: (clue.name or "", clue.name_key or "") for one, clue in nameless.items()}
        )
        touched += nameless
    if touched:
        await _tell(touched, at, tx, runtime)
    return owners


async def _make(missing: Mapping[str, Clues], connection: Connection) -> tuple[dict[str, AccountId], list[AccountId]]:
    """Accounts for domains that have none: an account of that very name without a domain takes it, else a new one.

    Of two at once that make one for the same domain the second waits, and takes the first one's.
    """
    named = Named(await _exact(connection, missing.values()), {})
    sites = {domain: has_name_and_site(clue, named.of(clue)) for domain, clue in missing.items()}
    wanted = {domain: site.account_id if site else AccountId(new_id()) for domain, site in sites.items()}
    ours = await queries.take_domains(connection, wanted)
    new = [
        Account(wanted[domain], 1, clue.name if clue.name and clue.name_key else domain, (domain,), made_by="leads")
        for domain, clue in missing.items()
        if domain in ours and sites[domain] is None
    ]
    if new:
        await queries.add_accounts(connection, [(one, company_key(one.name)) for one in new])
    others = await queries.domain_owners(connection, [domain for domain in missing if domain not in ours])
    theirs = {row["domain"]: AccountId(row["account_id"]) for row in others}
    return ours | theirs, sorted(set(ours.values()))


async def _tell(account_ids: Sequence[AccountId], at: datetime, tx: Tx, runtime: Runtime) -> None:
    await queries.raise_revisions(tx.connection, account_ids)
    accounts = await queries.accounts_of(tx.connection, account_ids)
    await standings.ask_again(
        tx.connection, [("name", key) for one in accounts.values() if (key := company_key(one.name))]
    )
    await runtime.keys.emit_drafts(tx, account_drafts(accounts.values(), at))
