"""For tests: a clock that stands still, waiting for a condition, and a service in one process on real servers."""

from shared.testing._clock import FrozenClock
from shared.testing._eventually import eventually
from shared.testing._harness import Harness, harness, make_settings, token

__all__ = ["FrozenClock", "Harness", "eventually", "harness", "make_settings", "token"]
