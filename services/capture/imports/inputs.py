"""What callers say about imports, and what they get."""

import codecs
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field

from services.capture.facts.inputs import Name
from services.capture.imports.columns import Kind
from services.capture.imports.queries import State
from services.capture.imports.rows import Format
from services.capture.reading import FreeObject, Strict


def _is_delimiter(text: str) -> str:
    if len(text) != 1 or text in '"\r\n' or (not text.isprintable() and text != "\t"):
        raise ValueError("is one character, such as ; or a tab, and no quote")
    return text


_NOT_OF_FILES = ("idna", "raw-unicode-escape", "utf-7")  # of host names and mail; halves of characters come out of them


def _is_encoding(text: str) -> str:
    """The encoding by its one name. What is neither like ASCII nor two or four bytes a character is refused."""
    try:
        name = codecs.lookup(text.lower()).name
        if name == "utf-8-sig":
            return "utf-8"
        if name.startswith(("utf-16", "utf-32")) or ("a,\n".encode(name) == b"a,\n" and name not in _NOT_OF_FILES):
            return name
    except (LookupError, UnicodeError, ValueError):
        pass
    raise ValueError("is no encoding of text known here, such as utf-8, utf-16 or cp1252")


Delimiter = Annotated[str, AfterValidator(_is_delimiter), Field(examples=[";"])]
Encoding = Annotated[str, Field(max_length=40, examples=["cp1252"]), AfterValidator(_is_encoding)]


class ImportInput(Strict):
    """A file to come, and how it is to be read. What is not said is found out from the file; the preview shows it.

    `mapping` says for each field where it stands (the title of a column, a path, or `{"cel": …}` over `body`);
    `defaults` are the values of fields that a row does not have, and `phone_country`. `source` is whose `external_id`s
    are meant. A dry run does everything, and takes it back.
    """

    name: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    kind: Kind = "leads"
    format: Format = "csv"
    mapping: FreeObject | None = None
    defaults: FreeObject = Field(default_factory=dict)
    source: Name = "api"
    delimiter: Delimiter | None = None
    encoding: Encoding | None = None
    dry_run: bool = False


class ImportPatch(Strict):
    """What of an import is to change before it starts; null for what is to be found out again."""

    name: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    mapping: FreeObject | None = None
    defaults: FreeObject | None = None
    source: Name | None = None
    delimiter: Delimiter | None = None
    encoding: Encoding | None = None


class StartInput(Strict):
    """How an import is to run; without `dry_run` as it was said when it was made."""

    dry_run: bool | None = None


class ImportOut(BaseModel):
    """An import and how far it is. `rows_total` is an estimate until it is done."""

    import_id: str
    name: str
    kind: Kind
    format: Format
    source: str
    dry_run: bool
    state: State
    reason: str | None = None
    mapping: dict[str, Any] | None = None
    defaults: dict[str, Any]
    delimiter: str | None = None
    encoding: str | None = None
    columns: list[str]
    file_url: str
    errors_url: str
    file_bytes: int | None = None
    file_sha256: str | None = None
    rows_total: int | None = None
    rows_done: int
    created: int
    updated: int
    unchanged: int
    failed: int
    rows_per_second: float | None = None
    seconds_left: float | None = None
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None


class PreviewedRow(BaseModel):
    """A row and what it would make: `body` is that of the API's call, `outcome` what would become of it."""

    line: int
    row: dict[str, Any]
    body: dict[str, Any] | None = None
    outcome: Literal["created", "updated", "unchanged", "failed"]
    reason: str | None = None


class ImportPreview(BaseModel):
    """How the file is read, where the fields are found, and the first rows. `ignored` columns go nowhere."""

    columns: list[str]
    delimiter: str | None
    encoding: str
    mapping: dict[str, Any]
    guessed: bool
    ignored: list[str]
    problems: list[str]
    rows: list[PreviewedRow]
