"""A process that is told to stop finishes what is under way."""

from shared.settings import Settings
from shared.testing import eventually
from tests.service.runtime_world import execute, process, runtime_of, scratch, value


async def test_a_timer_that_runs_when_the_process_is_told_to_stop_runs_to_its_end(settings: Settings) -> None:
    async with runtime_of(settings) as runtime:
        await scratch(runtime.database)

        async def written(what: str) -> bool:
            return bool(await value(runtime.database, f"SELECT count(*) FROM applied WHERE of = '{what}'"))

        async with process(settings, module="patient_process") as worker:
            await eventually(lambda: written("begun"))
            worker.terminate()
            await execute(runtime.database, "INSERT INTO applied (of) VALUES ('may end')")
            assert await worker.wait() == 0
        assert await written("ended")
