"""Personal data in facts, encrypted with a key per person."""

from shared.personal._keys import Draft, PersonErased, PersonKeys, SealBroken

__all__ = ["Draft", "PersonErased", "PersonKeys", "SealBroken"]
