"""A key per person: what is personal in a fact is readable only as long as the person's key exists.

AES-256-GCM with a random 96-bit nonce; the lead id is the associated data, so that a block cannot be moved to another
person. The keys themselves are wrapped with the installation's key. Erasing destroys the wrapped key.
"""

import asyncio
import os
from base64 import b64decode
from binascii import b2a_base64
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.clock import Clock
from shared.db import Connection, LogRow, Tx, agreed_now, log_row, one
from shared.events import TOPIC_OF, Event, PersonKeyCreated
from shared.ids import EventId, LeadId, derived_id
from shared.personal._drafts import Draft, Encoded
from shared.personal._errors import KeysAwaited, PersonErased, SealBroken
from shared.secrets import Secrets

KNOWN = "SELECT lead_id, wrapped_key FROM person_keys WHERE lead_id = ANY($1)"
# After a restore keys are made again only when those that Kafka has are back: a second key would lose the first.
CREATE = """
INSERT INTO person_keys (lead_id, wrapped_key) SELECT * FROM unnest($1::text[], $2::text[])
WHERE NOT EXISTS (SELECT 1 FROM installation WHERE name = 'keys_awaited')
ON CONFLICT DO NOTHING RETURNING lead_id
"""
AWAITED = "SELECT 1 FROM installation WHERE name = 'keys_awaited'"
ARRIVED = """
DELETE FROM installation WHERE name = 'keys_awaited' AND $2 <= (
    SELECT count(*) FROM feed_watermarks WHERE topic = $1 AND at > value::timestamptz
)
"""
FOLD = """
INSERT INTO person_keys (lead_id, wrapped_key) SELECT * FROM unnest($1::text[], $2::text[]) ON CONFLICT DO NOTHING
"""
DESTROY = """
INSERT INTO person_keys (lead_id, destroyed_at) SELECT id, clock_timestamp() FROM unnest($1::text[]) AS id
ON CONFLICT (lead_id) DO UPDATE SET wrapped_key = NULL, destroyed_at = clock_timestamp()
WHERE person_keys.destroyed_at IS NULL
RETURNING lead_id
"""
DESTROYED = "SELECT lead_id FROM person_keys WHERE destroyed_at IS NOT NULL"
FEED_READ_UP_TO = """
SELECT min(at) AS at, min(appended_ms) AS appended_ms, count(*) AS partitions FROM feed_watermarks WHERE topic = $1
"""
OPENABLE = """
SELECT lead_id, wrapped_key FROM person_keys WHERE lead_id = ANY($1)
UNION ALL
SELECT lead_id, NULL FROM person_keys WHERE lead_id = ANY($2) AND destroyed_at IS NOT NULL
"""
ARE_DESTROYED = "SELECT lead_id FROM person_keys WHERE lead_id = ANY($1) AND destroyed_at IS NOT NULL"
CACHED = 10_000
"""Persons whose ciphers are kept: each takes 2.5 kB."""
newest_fact_ms: ContextVar[Callable[[], int]] = ContextVar("newest_fact_ms", default=lambda: 0)
"""When Kafka appended the newest of the facts that are being carried out; 0 where they do not come out of Kafka."""


class PersonKeys:
    """Opens and seals the personal blocks of facts."""

    def __init__(self, secrets: Secrets, clock: Clock, partitions: int) -> None:
        self._wrapper = AESGCM(secrets.wrapping)
        self._clock = clock
        self._partitions = partitions
        self._cache: OrderedDict[LeadId, AESGCM] = OrderedDict()
        self._missing_since: dict[LeadId, datetime] = {}
        self._told: Mapping[LeadId, str] = {}
        self.arrived = asyncio.Event()

    def seal(self, lead_id: LeadId, cipher: AESGCM, plaintext: bytes) -> bytes:
        """An encrypted block, as ASCII text."""
        nonce = os.urandom(12)
        return b2a_base64(nonce + cipher.encrypt(nonce, plaintext, lead_id.encode()), newline=False)

    def forget(self, lead_ids: Iterable[LeadId]) -> None:
        """Drop cached keys: they were destroyed."""
        for lead_id in lead_ids:
            self._cache.pop(lead_id, None)

    def forget_all(self) -> None:
        """Drop every cached key; they are read again where they are needed."""
        self._cache.clear()

    def lacks(self, lead_ids: Iterable[LeadId]) -> bool:
        """Whether sealing for these persons needs the database."""
        return any(lead_id not in self._cache for lead_id in lead_ids)

    async def ciphers(
        self, connection: Connection, lead_ids: Sequence[LeadId], at: datetime
    ) -> tuple[dict[LeadId, AESGCM], list[PersonKeyCreated]]:
        """The keys of persons, made where there were none, and the facts that tell the new ones.

        Raises PersonErased for a person whose key is destroyed. Runs in the caller's transaction; the keys made are
        cached only by `remember`, after the commit.
        """
        found = {lead_id: self._cache[lead_id] for lead_id in lead_ids if lead_id in self._cache}
        absent = sorted({lead_id for lead_id in lead_ids if lead_id not in found})
        if not absent:
            return found, []
        known = await self._known(connection, absent)
        fresh = {lead_id: AESGCM.generate_key(256) for lead_id in absent if lead_id not in known}
        created: list[PersonKeyCreated] = []
        if fresh:
            wrapped = {lead_id: self._wrap(lead_id, key) for lead_id, key in fresh.items()}
            rows = await connection.fetch(CREATE, list(wrapped), list(wrapped.values()))
            ours = {row["lead_id"] for row in rows}
            created = [_key_created(lead_id, wrapped[lead_id], at) for lead_id in fresh if lead_id in ours]
            known |= {lead_id: AESGCM(key) for lead_id, key in fresh.items() if lead_id in ours}
            known |= await self._known(connection, [lead_id for lead_id in fresh if lead_id not in ours])
        if missing := [lead_id for lead_id in absent if lead_id not in known]:
            raise KeysAwaited(f"the keys of {len(missing)} persons are still to be read, after a restore")
        return found | known, created

    def remember(self, ciphers: dict[LeadId, AESGCM]) -> None:
        """Cache keys that are committed."""
        for lead_id, cipher in ciphers.items():
            self._cache[lead_id] = cipher
            self._cache.move_to_end(lead_id)
        while len(self._cache) > CACHED:
            self._cache.popitem(last=False)

    def sealed(self, drafts: Iterable[Draft], ciphers: dict[LeadId, AESGCM]) -> list[Event]:
        """The facts with their personal blocks encrypted."""
        return [
            draft.event
            if draft.personal is None
            else draft.event.model_copy(
                update={"personal": self.seal(draft.lead_id, ciphers[draft.lead_id], draft.personal).decode()}
            )
            for draft in drafts
        ]

    def rows(self, drafts: Iterable[Draft | Encoded], ciphers: dict[LeadId, AESGCM], trace: str | None) -> list[LogRow]:
        """The drafts as rows of the log, their personal blocks encrypted."""
        rows = []
        for draft in drafts:
            if isinstance(draft, Draft):
                content, key = draft.personal, draft.lead_id
                sealed = None if content is None else self.seal(key, ciphers[key], content)
                rows.append(log_row(draft.event, trace, sealed))
                continue
            kind, event_id, lead_id, at, _, value, personal, _ = draft
            if personal is not None:
                value = b'%s,"personal":"%s"}' % (value[:-1], self.seal(lead_id, ciphers[lead_id], personal))
            rows.append(LogRow((event_id, TOPIC_OF[kind], lead_id, kind.ce_type, lead_id, at, trace, value)))
        return rows

    async def emit_drafts(self, tx: Tx, unsealed: Sequence[Draft | Encoded]) -> None:
        """Seal drafts and tell them in a transaction, new keys first."""
        ciphers = await self._ciphers_for(unsealed, tx)
        for draft in unsealed:
            for row in self.rows([draft], ciphers, tx.trace_of(draft.lead_id)):
                tx.emit_row(row)

    async def seal_drafts(self, tx: Tx, drafts: Sequence[Draft]) -> list[Event]:
        """Seal drafts that are not told; keys made for them are."""
        return self.sealed(drafts, await self._ciphers_for(drafts, tx))

    async def _ciphers_for(self, drafts: Sequence[Draft | Encoded], tx: Tx) -> dict[LeadId, AESGCM]:
        """The keys that drafts are sealed with."""
        personal = [draft for draft in drafts if draft.personal is not None]
        if not personal:
            return {}
        return await self._ciphers_in(tx, [draft.lead_id for draft in personal], personal[0].received_at)

    async def seal_texts(self, tx: Tx, texts: Mapping[LeadId, bytes], at: datetime) -> dict[LeadId, str]:
        """Blocks of what is kept about persons in rows; keys made for them are told. Raises PersonErased."""
        ciphers = await self._ciphers_in(tx, sorted(texts), at)
        return {lead_id: self.seal(lead_id, ciphers[lead_id], text).decode() for lead_id, text in texts.items()}

    async def seal_known(self, connection: Connection, texts: Mapping[LeadId, bytes]) -> dict[LeadId, str]:
        """The same with the keys that are here, as only capture makes keys; of whom there is none nothing."""
        held = await self._here(connection, set(texts))
        if len(held) < len(texts):
            await self.refuse_while_awaited(connection)
        return {
            lead_id: self.seal(lead_id, held[lead_id], text).decode()
            for lead_id, text in texts.items()
            if lead_id in held
        }

    async def seal_by_any(
        self, connection: Connection, wanted: Sequence[tuple[Sequence[LeadId], bytes]]
    ) -> list[tuple[LeadId, str] | None]:
        """For each text a block by the first of its ids that has a key here, and that id; None if none has."""
        held = await self._here(connection, {lead_id for lead_ids, _ in wanted for lead_id in lead_ids})
        first = [next((lead_id for lead_id in lead_ids if lead_id in held), None) for lead_ids, _ in wanted]
        return [
            (lead_id, self.seal(lead_id, held[lead_id], text).decode()) if lead_id is not None else None
            for lead_id, (_, text) in zip(first, wanted, strict=True)
        ]

    def open_with(self, lead_id: LeadId, wrapped_key: str, block: str) -> bytes:
        """The plain text of a block, by the key that was read along with it. Raises SealBroken."""
        return self._open(lead_id, self._unwrap(lead_id, wrapped_key), block)

    async def refuse_while_awaited(self, connection: Connection) -> None:
        """Raise KeysAwaited while, after a restore, not all keys that Kafka has are back: then none counts as gone."""
        if await connection.fetchval(AWAITED):
            raise KeysAwaited("the keys of persons are still to be read, after a restore")

    async def note_arrival(self, connection: Connection) -> None:
        """Note that after a restore all keys are back, once the feed has been read up to what was told later."""
        await connection.execute(ARRIVED, "keys", self._partitions)

    async def _ciphers_in(self, tx: Tx, lead_ids: Sequence[LeadId], at: datetime) -> dict[LeadId, AESGCM]:
        """The keys of persons, looked up once a transaction; new ones are told."""
        known: dict[LeadId, AESGCM] = tx.memory.setdefault("ciphers", {})
        absent = [lead_id for lead_id in lead_ids if lead_id not in known]
        if absent:
            await self._refuse_erased(tx.connection, set(absent))
            found, created = await self.ciphers(tx.connection, absent, at)
            tx.emit(*created)
            known |= found
        return known

    async def open_many(
        self, connection: Connection, blocks: Sequence[tuple[LeadId, str | None]]
    ) -> list[bytes | None]:
        """The plain text of each block; None where there is none or the person is erased.

        Raises KeysAwaited while a key is still on its way: the batch is then tried again. A key that is cached here may
        have been destroyed by another process, so that is asked each time.
        """
        held = await self._existing(connection, {lead_id for lead_id, block in blocks if block})
        return [
            self._open(lead_id, held[lead_id], block) if block and lead_id in held else None
            for lead_id, block in blocks
        ]

    async def tell_known(self, tx: Tx, event: Event, personal: bytes) -> bool:
        """Tell a fact sealed with a key that is there: only capture makes keys. False, and untold, of an erased person.

        Raises Unavailable while the key is still on its way.
        """
        held = await self._existing(tx.connection, {event.lead_id})
        if event.lead_id not in held:
            return False
        tx.emit(*self.sealed([Draft(event, personal)], held))
        return True

    async def _existing(self, connection: Connection, needed: set[LeadId]) -> dict[LeadId, AESGCM]:
        """The keys of those who are not erased. Raises Unavailable while one is still on its way."""
        gone: set[LeadId] = set()
        held = await self._here(connection, needed, gone)
        await self._await_keys(connection, sorted(needed - held.keys() - gone))
        return held

    async def _here(
        self, connection: Connection, needed: set[LeadId], gone: set[LeadId] | None = None
    ) -> dict[LeadId, AESGCM]:
        """The keys that are here; `gone` takes those that were destroyed."""
        if not needed:
            return {}
        held = {lead_id: self._cache[lead_id] for lead_id in needed if lead_id in self._cache}
        rows = await connection.fetch(OPENABLE, sorted(needed - held.keys()), sorted(held))
        destroyed = {LeadId(row["lead_id"]) for row in rows if row["wrapped_key"] is None}
        self.forget(destroyed)
        held = {lead_id: cipher for lead_id, cipher in held.items() if lead_id not in destroyed}
        for row in rows:
            if row["wrapped_key"] is not None:
                held[row["lead_id"]] = self._unwrap(row["lead_id"], row["wrapped_key"])
        self.remember(held)
        if self._told.keys() & (needed - held.keys() - destroyed):
            held |= await self._told_ones(connection, needed - held.keys(), destroyed)
        if gone is not None:
            gone |= destroyed
        return held

    async def _told_ones(
        self, connection: Connection, absent: set[LeadId], destroyed: set[LeadId]
    ) -> dict[LeadId, AESGCM]:
        """Keys that have come and are not kept yet; whoever uses one keeps it too, and waits for who is about to."""
        told = self._told  # all in one order, as they are folded
        await connection.execute(FOLD, sorted(told), [told[lead_id] for lead_id in sorted(told)])
        rows = await connection.fetch(OPENABLE, sorted(absent), [])
        destroyed |= {row["lead_id"] for row in rows if row["wrapped_key"] is None}
        found = [row for row in rows if row["wrapped_key"] is not None]
        return {row["lead_id"]: self._unwrap(row["lead_id"], row["wrapped_key"]) for row in found}

    def tell(self, keys: Mapping[LeadId, str]) -> None:
        """Let keys, wrapped, that have come be used before they are kept; then none any more."""
        self._told = keys
        self.arrived.set()

    async def fold_keys(self, connection: Connection, facts: Sequence[tuple[LeadId, PersonKeyCreated | None]]) -> None:
        """Keep keys that were told, and destroy those whose tombstone came."""
        keys = {lead_id: fact.wrapped_key for lead_id, fact in facts if fact is not None}
        gone = sorted({lead_id for lead_id, fact in facts if fact is None})
        if keys:
            await connection.execute(FOLD, sorted(keys), [keys[lead_id] for lead_id in sorted(keys)])
        if gone:
            await connection.execute(DESTROY, gone)
            self.forget(gone)

    async def destroy(self, tx: Tx, lead_id: LeadId, at: datetime) -> None:
        """Destroy a person's key, here and, by a tombstone, everywhere."""
        await tx.connection.fetch(DESTROY, [lead_id])
        self.forget([lead_id])
        tx.memory.get("ciphers", {}).pop(lead_id, None)
        kind = PersonKeyCreated
        tx.emit_tombstone(
            EventId(derived_id("key-destroyed", lead_id)), TOPIC_OF[kind], lead_id, kind.ce_type, at.isoformat()
        )

    async def destroyed(self, connection: Connection) -> set[LeadId]:
        """Every person whose key is destroyed."""
        return {LeadId(row["lead_id"]) for row in await connection.fetch(DESTROYED)}

    async def _await_keys(self, connection: Connection, absent: Sequence[LeadId]) -> None:
        """Wait, by raising KeysAwaited, until the keys that were told before the facts at hand have all been read.

        A source tells its keys before what they seal, and publishes a watermark only when all before it is published.
        So a watermark in the feed of keys that Kafka appended later than the facts says that what is absent stays so.
        For facts that do not come out of Kafka it is one later than the moment the key was missed first.
        """
        if not absent:
            return
        appended_ms = newest_fact_ms.get()()
        row = await one(connection, FEED_READ_UP_TO, "keys")
        complete = row["partitions"] >= self._partitions
        if appended_ms:
            waiting = [] if complete and row["appended_ms"] > appended_ms else absent
        else:
            now = await agreed_now(connection, self._clock)
            since = {lead_id: self._missing_since.setdefault(lead_id, now) for lead_id in absent}
            waiting = [lead_id for lead_id in absent if not complete or row["at"] < since[lead_id]]
        if waiting:
            raise KeysAwaited(f"the keys of {len(waiting)} persons have not arrived yet")
        for lead_id in absent:
            self._missing_since.pop(lead_id, None)

    async def _refuse_erased(self, connection: Connection, lead_ids: Iterable[LeadId]) -> None:
        """Forget cached keys that another process destroyed, so that nobody seals with them."""
        cached = sorted(lead_id for lead_id in lead_ids if lead_id in self._cache)
        if cached:
            self.forget(LeadId(row["lead_id"]) for row in await connection.fetch(ARE_DESTROYED, cached))

    async def _known(self, connection: Connection, lead_ids: Sequence[LeadId]) -> dict[LeadId, AESGCM]:
        known = {}
        for row in await connection.fetch(KNOWN, lead_ids) if lead_ids else ():
            lead_id = LeadId(row["lead_id"])
            if row["wrapped_key"] is None:
                raise PersonErased(f"the person behind lead {lead_id} was erased; send the identifiers again")
            known[lead_id] = self._unwrap(lead_id, row["wrapped_key"])
        return known

    def _wrap(self, lead_id: LeadId, key: bytes) -> str:
        return self.seal(lead_id, self._wrapper, key).decode()

    def _unwrap(self, lead_id: LeadId, wrapped: str) -> AESGCM:
        return AESGCM(self._open(lead_id, self._wrapper, wrapped))

    def _open(self, lead_id: LeadId, cipher: AESGCM, block: str) -> bytes:
        try:
            raw = b64decode(block, validate=True)
            return cipher.decrypt(raw[:12], raw[12:], lead_id.encode())
        except (InvalidTag, ValueError) as exc:
            raise SealBroken(f"a personal block of lead {lead_id} does not open") from exc

    def seal_request(self, content: dict[str, object], label: str) -> str:
        """Encrypt what has no person yet, such as a delivery that nobody has looked into."""
        return self.seal(LeadId(label), self._wrapper, orjson.dumps(content)).decode()

    def seal_bytes(self, content: bytes, label: str) -> bytes:
        """Encrypt bytes that belong to no single person, such as a piece of a file."""
        nonce = os.urandom(12)
        return nonce + self._wrapper.encrypt(nonce, content, label.encode())

    def open_bytes(self, block: bytes, label: str) -> bytes:
        """What `seal_bytes` encrypted under this label. Raises SealBroken."""
        try:
            return self._wrapper.decrypt(block[:12], block[12:], label.encode())
        except (InvalidTag, ValueError) as exc:
            raise SealBroken(f"a block of {label} does not open") from exc

    def open_request(self, block: str, label: str) -> dict[str, object]:
        """What `seal_request` encrypted under this label."""
        content: dict[str, object] = orjson.loads(self._open(LeadId(label), self._wrapper, block))
        return content


def _key_created(lead_id: LeadId, wrapped: str, at: datetime) -> PersonKeyCreated:
    return PersonKeyCreated(
        event_id=EventId(derived_id("key-created", lead_id)),
        lead_id=lead_id,
        occurred_at=at,
        received_at=at,
        wrapped_key=wrapped,
    )
