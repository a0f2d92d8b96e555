"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_DATA_DIR = Path(".throughline")

DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir",
        envvar="THROUGHLINE_DATA_DIR",
        help="Where the stack keeps its data.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
