"""Which versions of templates count now. The documents themselves are kept by `shared.rules.DocumentStore`."""

from shared.db import Connection

CURRENT_VERSIONS = """
SELECT DISTINCT ON (name) name, version FROM rule_activations
WHERE kind = 'template' AND effective_at <= clock_timestamp()
ORDER BY name, effective_at DESC, sequence DESC
"""
LISTED = """
SELECT DISTINCT name FROM rule_activations WHERE kind = 'template' AND name > $1 ORDER BY name LIMIT $2
"""
# The lock that the store takes when it saves a template.
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('template/' || $1, 0))"


async def lock(connection: Connection, template_id: str) -> None:
    """Keep others from saving a template of this id until the transaction ends."""
    await connection.execute(LOCK, template_id)


async def current_versions(connection: Connection) -> dict[str, int]:
    """Each template's version that counts now."""
    return {row["name"]: row["version"] for row in await connection.fetch(CURRENT_VERSIONS)}


async def listed(connection: Connection, after: str, limit: int) -> list[str]:
    """A page of template ids, in their order."""
    return [row["name"] for row in await connection.fetch(LISTED, after, limit)]
