"""Every generated document by its path, and how they are written and compared."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import yaml

from throughline.contracts.asyncapi import asyncapi
from throughline.contracts.openapi import openapi
from throughline.contracts.page import with_table
from throughline.contracts.samples import ROOT
from throughline.contracts.schemas import refuse_breaks, schemas
from throughline.services import SERVICES

DOCS = ROOT / "docs"
SCHEMAS = DOCS / "events" / "schemas"
PAGE = DOCS / "events.md"


def documents() -> dict[Path, str]:
    """What stands, or should stand, in each generated file. Raises Broken where a fact's schema would break."""
    made = schemas()
    refuse_breaks(SCHEMAS, made)
    return {
        **{SCHEMAS / f"{name}.json": _json(schema) for name, schema in made.items()},
        DOCS / "asyncapi.yaml": yaml.safe_dump(asyncapi(), sort_keys=False, allow_unicode=True, width=120),
        **{DOCS / "openapi" / f"{service}.json": _json(openapi(service)) for service in SERVICES},
        PAGE: with_table(PAGE.read_text()),
    }


def write(made: Mapping[Path, str]) -> list[Path]:
    """Write what differs; answers which."""
    changed = list(in_step(made))
    for path in changed:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made[path])
    return changed


def in_step(made: Mapping[Path, str]) -> dict[Path, str]:
    """Which files are not as they would be written, and why."""
    found = {}
    for path, text in made.items():
        if not path.exists():
            found[path] = "is missing"
        elif path.read_text() != text:
            found[path] = "is not what the code says"
    return found


def _json(document: Any) -> str:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()
