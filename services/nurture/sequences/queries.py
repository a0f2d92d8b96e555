"""Which versions of sequences matter now. The documents themselves are kept by `shared.rules.DocumentStore`."""

from shared.db import Connection
from shared.ids import SequenceId

CURRENT_VERSIONS = """
SELECT DISTINCT ON (name) name, version FROM rule_activations
WHERE kind = 'sequence' AND effective_at <= clock_timestamp()
ORDER BY name, effective_at DESC, sequence DESC
"""
# One probe of the index per version there is, however many runs are under way.
VERSIONS_UNDER_WAY = """
SELECT name, version FROM rule_documents AS document
WHERE kind = 'sequence' AND EXISTS (
    SELECT FROM enrolments
    WHERE active AND enrolments.sequence_id = document.name AND enrolments.version = document.version
)
"""
LISTED = """
SELECT DISTINCT name FROM rule_documents WHERE kind = 'sequence' AND name > $1 ORDER BY name LIMIT $2
"""


async def current_versions(connection: Connection) -> list[tuple[SequenceId, int]]:
    """Each sequence's version that counts now."""
    return [(SequenceId(row["name"]), row["version"]) for row in await connection.fetch(CURRENT_VERSIONS)]


async def versions_under_way(connection: Connection) -> list[tuple[SequenceId, int]]:
    """Every version that a run follows."""
    return [(SequenceId(row["name"]), row["version"]) for row in await connection.fetch(VERSIONS_UNDER_WAY)]


async def listed(connection: Connection, after: str, limit: int) -> list[SequenceId]:
    """A page of sequence ids, in their order."""
    return [SequenceId(row["name"]) for row in await connection.fetch(LISTED, after, limit)]
