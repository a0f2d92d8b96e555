"""A request to a hook as it is kept: packed and encrypted, small enough for a Kafka record."""

import zlib
from base64 import b64decode, b64encode

import asyncpg

from services.capture.adapters.request import HookRequest
from shared.errors import TooLarge
from shared.events import DeliveryReceived
from shared.ids import EventId, SourceId, new_id
from shared.personal import PersonKeys

LARGEST_SEALED = 900_000  # a Kafka record has at most 1 MiB
WORTH_PACKING = 2_048


def delivery_fact(
    request: HookRequest, source_id: SourceId, kind: str, delivery_id: str, keys: PersonKeys
) -> DeliveryReceived:
    """A verified request as a fact: one for each attempt at a delivery, so that all can be counted. Raises TooLarge."""
    dumped = request.dump()
    packed = {"zlib": b64encode(zlib.compress(dumped, 1)).decode()} if len(dumped) > WORTH_PACKING else None
    sealed = keys.seal_request(dict(packed or {"plain": dumped.decode()}), _label(source_id, delivery_id))
    if len(sealed) > LARGEST_SEALED:
        raise TooLarge("the body is too large to be kept, even packed")
    return DeliveryReceived(
        event_id=EventId(new_id()),
        occurred_at=request.received_at,
        received_at=request.received_at,
        source_id=source_id,
        kind=kind,
        delivery_id=delivery_id,
        sealed=sealed,
    )


def kept_delivery(row: asyncpg.Record) -> DeliveryReceived:
    """The delivery that a row of the table keeps, as a fact to be mapped."""
    return DeliveryReceived(
        event_id=EventId(new_id()),
        occurred_at=row["received_at"],
        received_at=row["received_at"],
        source_id=SourceId(row["source_id"]),
        kind=row["kind"],
        delivery_id=row["delivery_id"],
        sealed=row["sealed"],
    )


def request_in(sealed: str, source_id: str, delivery_id: str, keys: PersonKeys) -> HookRequest:
    """The request that `delivery_fact` kept."""
    kept = keys.open_request(sealed, _label(source_id, delivery_id))
    if "zlib" in kept:
        return HookRequest.load(zlib.decompress(b64decode(str(kept["zlib"]))))
    return HookRequest.load(str(kept["plain"]).encode())


def _label(source_id: str, delivery_id: str) -> str:
    return f"delivery/{source_id}/{delivery_id}"
