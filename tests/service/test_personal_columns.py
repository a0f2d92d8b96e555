"""What stands in clear of a person in the database: every column of every table is looked through."""

import pytest

from shared.settings import Settings
from tests.service.company import company
from tests.service.personal_marks import MARKS, columns_with, live

pytestmark = pytest.mark.timeout(400)  # five services at once


async def test_nothing_personal_stands_in_clear_in_any_column(settings: Settings) -> None:
    async with company(settings) as everybody:
        await live(everybody, settings)
        assert await columns_with(settings.database_url.get_secret_value(), MARKS) == {}
