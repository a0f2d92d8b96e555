"""Personal data in facts, encrypted with a key per person."""

from shared.personal._drafts import Draft, Encoded
from shared.personal._keys import KeysAwaited, PersonErased, PersonKeys, SealBroken, newest_fact_ms

__all__ = ["Draft", "Encoded", "KeysAwaited", "PersonErased", "PersonKeys", "SealBroken", "newest_fact_ms"]
