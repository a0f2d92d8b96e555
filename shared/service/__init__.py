"""What turns a service's three entry points into processes: roles, timers, upkeep, rebuilds."""

from shared.service._consuming import (
    Consuming,
    make_consumer,
    make_keys_consumer,
    make_processor,
    positions_name,
    projection_version,
    reads_keys,
)
from shared.service._process import free_port, run, run_timer, running
from shared.service._rebuild import RebuildRefused, rebuild
from shared.service._runtime import Feeds, Role, Runtime, ServiceCode, Timer, build_runtime
from shared.service._upkeep import WrongSecret, check_secret, prepare_partitions, upkeep

__all__ = [
    "Consuming",
    "Feeds",
    "RebuildRefused",
    "Role",
    "Runtime",
    "ServiceCode",
    "Timer",
    "WrongSecret",
    "build_runtime",
    "check_secret",
    "free_port",
    "make_consumer",
    "make_keys_consumer",
    "make_processor",
    "positions_name",
    "prepare_partitions",
    "projection_version",
    "reads_keys",
    "rebuild",
    "run",
    "run_timer",
    "running",
    "upkeep",
]
