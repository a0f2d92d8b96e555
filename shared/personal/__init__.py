"""Personal data in facts, encrypted with a key per person."""

from shared.personal._keys import Draft, Encoded, PersonErased, PersonKeys, SealBroken

__all__ = ["Draft", "Encoded", "PersonErased", "PersonKeys", "SealBroken"]
