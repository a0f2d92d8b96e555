"""The event log of a service: the lane in, and the relay that publishes it."""

from shared.outbox._event_log import EventLog
from shared.outbox._lease import Lease, LeaseLost, while_held
from shared.outbox._relay import Relay, partition_of

__all__ = ["EventLog", "Lease", "LeaseLost", "Relay", "partition_of", "while_held"]
