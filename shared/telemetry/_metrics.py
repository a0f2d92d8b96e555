"""Every metric is declared where it is counted, with its reason."""

from collections.abc import Sequence

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


def counter(name: str, why: str, labels: Sequence[str] = ()) -> Counter:
    """A number that only grows."""
    return Counter(name, why, labels)


def gauge(name: str, why: str, labels: Sequence[str] = ()) -> Gauge:
    """A number that goes up and down."""
    return Gauge(name, why, labels)


def histogram(name: str, why: str, labels: Sequence[str] = (), buckets: Sequence[float] = SECONDS) -> Histogram:
    """How a measure is spread; seconds unless the name says otherwise."""
    return Histogram(name, why, labels, buckets=buckets)


def render() -> bytes:
    """All metrics of this process in Prometheus' text format."""
    return generate_latest(REGISTRY)
