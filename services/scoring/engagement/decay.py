"""Sums of decaying points that come out the same, to the last bit, in whatever order their terms were added.

A term of `points` at `at` is worth points · 2^(−(t − at) / half_life) at a later t. Written as
2^(−t / half_life) · points · 2^(at / half_life), the part that depends on `at` alone can be summed once and for all. It
is kept as an exact binary number, since adding whole numbers needs no order and can be undone, which adding floats
does and cannot.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from math import ldexp

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Far more than a double holds: what is dropped below has decayed to 2^-256 of the rest, and never counts again.
KEPT_BITS = 320
FRACTION_BITS = 52


def micros(at: datetime) -> int:
    """Microseconds since the epoch."""
    delta = at - EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


@dataclass(frozen=True, slots=True)
class Decaying:
    """mantissa · 2^exponent, to be multiplied by 2^(−t / half_life). The mantissa is odd, or zero."""

    mantissa: int = 0
    exponent: int = 0

    @classmethod
    def term(cls, points: int, at: int, half_life: int) -> "Decaying":
        """Points given at a moment; both times in microseconds."""
        whole, rest = divmod(at, half_life)
        fraction = int(ldexp(2.0 ** (rest / half_life), FRACTION_BITS))
        return _normal(points * fraction, whole - FRACTION_BITS)

    @classmethod
    def exact(cls, mantissa: int, exponent: int) -> "Decaying":
        """A sum that was added up elsewhere, in the form in which it is kept."""
        return _normal(mantissa, exponent)

    def __add__(self, other: "Decaying") -> "Decaying":
        if not self.mantissa:
            return other
        if not other.mantissa:
            return self
        if abs(self.top - other.top) > KEPT_BITS:
            return max(self, other, key=lambda one: one.top)
        low = min(self.exponent, other.exponent)
        return _normal((self.mantissa << (self.exponent - low)) + (other.mantissa << (other.exponent - low)), low)

    @property
    def top(self) -> int:
        """The place of the highest bit."""
        return self.exponent + self.mantissa.bit_length()

    def __neg__(self) -> "Decaying":
        return Decaying(-self.mantissa, self.exponent)

    def value(self, at: int, half_life: int) -> float:
        """What the sum is worth at a moment that is not before its newest term."""
        return worth(self.mantissa, self.exponent, at, half_life)


def worth(mantissa: int, exponent: int, at: int, half_life: int) -> float:
    """What mantissa · 2^exponent · 2^(−t / half_life) comes to at a moment."""
    whole, rest = divmod(at, half_life)
    factor: float = 2.0 ** -(rest / half_life)
    return ldexp(float(mantissa), exponent - whole) * factor


def _normal(mantissa: int, exponent: int) -> Decaying:
    if not mantissa:
        return Decaying()
    surplus = mantissa.bit_length() - KEPT_BITS
    if surplus > 0:
        mantissa, exponent = mantissa >> surplus, exponent + surplus
        if not mantissa:
            return Decaying()
    zeros = (mantissa & -mantissa).bit_length() - 1
    return Decaying(mantissa >> zeros, exponent + zeros)
