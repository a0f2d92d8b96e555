"""Files that are whole whenever somebody looks."""

import json
import os
from pathlib import Path
from typing import Any


def write_whole(file: Path, content: dict[str, Any], *, durable: bool = False) -> None:
    """Replace a file in one step, readable by its owner alone; `durable` before anything relies on it."""
    making = file.with_suffix(".making")
    descriptor = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as output:
        json.dump(content, output, indent=2)
        output.flush()
        if durable:
            os.fsync(output.fileno())
    making.replace(file)
