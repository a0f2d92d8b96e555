"""Topics as code: made where they are missing, compared where they are there, never deleted."""

from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from shared.errors import Unavailable
from shared.events import TOPICS, Topic
from shared.settings import Settings

EVERY_TOPIC = {
    "max.message.bytes": "4194304",  # more than any fact has; one that does not fit would hold up all behind it
    "message.timestamp.type": "LogAppendTime",  # one clock says what was appended since a moment
}


@dataclass(frozen=True, slots=True)
class Drift:
    """A topic that is not as it should be."""

    topic: str
    detail: str


async def apply_topics(settings: Settings) -> list[str]:
    """Make the topics that are missing; answers their names. What is there is left as it is."""
    admin = await admin_of(settings)
    try:
        there = set(await admin.list_topics())
        missing = [topic for topic in TOPICS if settings.topic_prefix + topic.name not in there]
        if missing:
            response = await admin.create_topics([_new_topic(settings, topic) for topic in missing])
            for name, code, *_ in response.topic_errors:
                error = for_code(code)
                if code and error is not TopicAlreadyExistsError:
                    raise Unavailable(f"topic {name} was not made: {error.__name__}")
        return [settings.topic_prefix + topic.name for topic in missing]
    finally:
        await admin.close()


async def topic_drift(settings: Settings) -> list[Drift]:
    """Where the broker's topics differ from the topic table."""
    admin = await admin_of(settings)
    try:
        drifts: list[Drift] = []
        there = set(await admin.list_topics())
        for topic in TOPICS:
            name = settings.topic_prefix + topic.name
            if name not in there:
                drifts.append(Drift(name, "missing; run `throughline topics apply`"))
                continue
            described = (await admin.describe_topics([name]))[0]
            partitions = len(described["partitions"])
            if partitions != settings.topic_partitions:
                drifts.append(Drift(name, f"{partitions} partitions, expected {settings.topic_partitions}"))
            drifts.extend(await _config_drift(admin, name, topic))
        return drifts
    finally:
        await admin.close()


async def _config_drift(admin: AIOKafkaAdminClient, name: str, topic: Topic) -> list[Drift]:
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    values = {entry[0]: entry[1] for answer in answers for resource in answer.resources for entry in resource[4]}
    return [
        Drift(name, f"{key} is {values.get(key)}, expected {value}")
        for key, value in _config(topic).items()
        if values.get(key) != value
    ]


def _config(topic: Topic) -> dict[str, str]:
    return {**EVERY_TOPIC, **topic.config}


def _new_topic(settings: Settings, topic: Topic) -> NewTopic:
    return NewTopic(
        name=settings.topic_prefix + topic.name,
        num_partitions=settings.topic_partitions,
        replication_factor=settings.topic_replication_factor,
        topic_configs=_config(topic),
    )


async def admin_of(settings: Settings) -> AIOKafkaAdminClient:
    """A client for looking after the broker, which the caller closes. Raises Unavailable."""
    admin = AIOKafkaAdminClient(
        bootstrap_servers=settings.kafka_bootstrap_servers, client_id="throughline-topics", request_timeout_ms=10_000
    )
    try:
        await admin.start()
    except (KafkaError, OSError) as exc:
        raise Unavailable(f"Kafka at {settings.kafka_bootstrap_servers} does not answer") from exc
    return admin
