"""What is on record of facts that were taken back."""

from shared.db import Connection
from shared.events import TouchWithdrawn

AUDIT = "INSERT INTO audit_entries (actor, action, target, detail) VALUES ($1, 'touch.withdrawn', $2, $3)"


async def audit_withdrawal(connection: Connection, actor: str, fact: TouchWithdrawn) -> None:
    """Who withdrew which touch, and why."""
    await connection.execute(AUDIT, actor, f"{fact.origin}/{fact.touch_id}", {"reason": fact.reason})
