"""Long work uses the most that there are, and no more memory than its container has."""

import pytest

from shared.processes import MIB, processes_within


@pytest.mark.parametrize(
    ("limit_mib", "most", "processes"),
    [(None, 2, 2), (512, 4, 2), (512, 1, 1), (256, 4, 0), (100, 4, 0), (4_096, 4, 4)],
)
def test_processes_fit_into_the_memory_of_the_container(limit_mib: int | None, most: int, processes: int) -> None:
    assert processes_within(None if limit_mib is None else limit_mib * MIB, most) == processes
