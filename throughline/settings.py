"""A command's settings: the environment, and beside a stack of this machine what that was started with."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.embedded.folder import DataFolder
from throughline.errors import BadSettings

if TYPE_CHECKING:
    from shared.settings import Settings

SECRET = "THROUGHLINE_SECRET"
NEEDED = ("THROUGHLINE_DATABASE_URL", "THROUGHLINE_KAFKA_BOOTSTRAP_SERVERS", SECRET)


def load_settings(data_dir: Path) -> "Settings":
    """The settings of a command. Where the environment does not give them all, the running stack's fill the gaps."""
    from pydantic import ValidationError

    from shared.settings import Settings

    missing = [name for name in NEEDED if given(name) is None]
    if missing:
        folder = DataFolder(data_dir)
        beside = folder.read_settings() if folder.supervisor() else None
        if beside is None:
            raise BadSettings(
                f"No stack runs on {data_dir} and {', '.join(missing)} is not set: "
                "start one with `throughline up`, name its folder with --data-dir, or set what is missing."
            )
        for name, value in beside.items():
            os.environ.setdefault(name, value)
    try:
        return Settings.model_validate({})  # the environment gives the values
    except ValidationError as exc:
        faults = "; ".join(
            "_".join(("THROUGHLINE", *map(str, fault["loc"]))).upper() + f": {fault['msg']}" for fault in exc.errors()
        )
        raise BadSettings(f"The settings cannot be used: {faults}.") from exc


def load_secret(data_dir: Path) -> str:
    """The installation's secret, which is all that some commands need; the stack need not run."""
    secret = given(SECRET)
    if secret is None:
        kept = DataFolder(data_dir).read_secrets()
        if kept is None:
            raise BadSettings(
                f"There is no secret: {SECRET} is not set, and no stack was ever started on {data_dir} "
                "(name another folder with --data-dir)."
            )
        secret = kept.secret
    return secret


def given(name: str) -> str | None:
    """A setting as a variable, else as a file that a container was given."""
    from shared.settings import SECRET_FILES

    file = SECRET_FILES / name.lower()
    return os.environ.get(name) or (file.read_text().strip() if file.is_file() else None)
