"""A worker on its own whose timer begins, and ends when a row says so: `python -m tests.service.patient_process`."""

import sys
from datetime import timedelta

from shared.service import Runtime, ServiceCode, Timer, run
from shared.settings import Settings
from shared.testing import eventually
from tests.service.runtime_world import SERVICE

WRITE = "INSERT INTO applied (of) VALUES ($1)"
MAY_END = "SELECT count(*) FROM applied WHERE of = 'may end'"


def timers(runtime: Runtime) -> tuple[Timer, ...]:
    async def patient() -> None:
        async with runtime.database.reading() as connection:
            await connection.execute(WRITE, "begun")
            await eventually(lambda: connection.fetchval(MAY_END))
            await connection.execute(WRITE, "ended")

    return (Timer("patient", patient, timedelta(hours=1)),)


if __name__ == "__main__":
    sys.exit(run(ServiceCode(SERVICE, lambda _: (), lambda _: (), timers), ["worker"], Settings()))
