"""Ids as text: the layout of RFC 9562, and the same for the same parts."""

import hashlib
import uuid

from hypothesis import given
from hypothesis import strategies as st

from shared.ids import derived_id, new_id, uuid8


@given(st.binary(min_size=16, max_size=64))
def test_a_digest_is_written_as_a_version_8_uuid(digest: bytes) -> None:
    written = uuid.UUID(uuid8(digest))
    assert (written.version, written.variant) == (8, uuid.RFC_4122)
    mask = ~((0xF000 << 64) | (0xC000 << 48))
    assert written.int & mask == int.from_bytes(digest[:16], "big") & mask


def test_random_ids_are_version_4_and_differ() -> None:
    ids = {new_id() for _ in range(1_000)}
    assert len(ids) == 1_000
    assert {(uuid.UUID(each).version, uuid.UUID(each).variant) for each in ids} == {(4, uuid.RFC_4122)}


def test_an_id_is_derived_from_its_parts_in_order_and_apart() -> None:
    assert derived_id("a", "b") == derived_id("a", "b") == uuid8(hashlib.sha256(b"a\x1fb").digest())
    assert len({derived_id("a", "b"), derived_id("b", "a"), derived_id("ab"), derived_id("a", "", "b")}) == 4
