"""Personal data in facts, encrypted with a key per person."""

from shared.personal._drafts import Draft, Encoded
from shared.personal._errors import KeysAwaited, PersonErased, SealBroken
from shared.personal._keys import PersonKeys, newest_fact_ms

__all__ = ["Draft", "Encoded", "KeysAwaited", "PersonErased", "PersonKeys", "SealBroken", "newest_fact_ms"]
