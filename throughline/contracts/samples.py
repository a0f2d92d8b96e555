"""The golden samples: one record of each kind of fact as it stands in Kafka, kept for as long as that kind is."""

from pathlib import Path

from shared.events import Event

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "tests" / "contract" / "golden"


def sample_of(kind: type[Event]) -> bytes:
    """The value of a complete record of this kind."""
    return (SAMPLES / f"{kind.ce_type}.json").read_bytes()
