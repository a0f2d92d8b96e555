"""Consumer groups that nobody is in any more."""

from contextlib import suppress

from aiokafka.errors import KafkaError
from aiokafka.protocol.admin import DeleteGroupsRequest

from shared.errors import Unavailable
from shared.kafka._topics import admin_of
from shared.settings import Settings


async def forget_group(settings: Settings, group: str) -> None:
    """Have Kafka forget what a group committed: for a week tools would tell that it falls behind.

    One that somebody is in is left alone, and one that cannot be forgotten now is forgotten by Kafka itself in the end.
    """
    name = settings.topic_prefix + group
    with suppress(KafkaError, OSError, TimeoutError, Unavailable):
        admin = await admin_of(settings)
        try:
            coordinator = await admin.find_coordinator(name)
            await admin._send_request_to_node(coordinator, DeleteGroupsRequest([name]))  # noqa: SLF001  # no public way
        finally:
            await admin.close()
