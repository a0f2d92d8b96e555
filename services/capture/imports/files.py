"""Files to be imported, kept in PostgreSQL in pieces, packed and sealed: any process can go on with them."""

import asyncio
import codecs
import hashlib
import zlib
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from services.capture.errors import NoSuchContentEncoding
from services.capture.imports import queries
from services.capture.imports.queries import Import
from shared.errors import Malformed, TooLarge, Unavailable
from shared.ids import new_id
from shared.service import Runtime

PIECE = 512 * 1024
_GZIP = 16 + zlib.MAX_WBITS
_ARCHIVE = b"PK\x03\x04"
_WIDE = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_LONGEST_MARK = max(map(len, _WIDE))


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in pieces. `sha256` is that of the bytes as they were sent, unpacked; `sample` its beginning."""

    file_id: str
    size: int
    lines: int
    sha256: str
    sample: bytes


async def store_file(request: Request, encoding: str | None, runtime: Runtime) -> StoredFile:
    """Keep the body of a request, however large, in constant memory. Raises TooLarge, Malformed.

    What is written two or four bytes a character is kept as UTF-8, so that lines can be told apart by their bytes.
    """
    file_id = new_id()
    try:
        return await _store(file_id, _unpacked(request), encoding, runtime)
    except BaseException:
        with suppress(Unavailable, asyncio.CancelledError):
            await drop_file(file_id, runtime)
        raise


async def drop_file(file_id: str, runtime: Runtime) -> None:
    """Forget a file that is no import's."""
    async with runtime.database.reading() as connection:
        await connection.execute(queries.DROP_FILE, file_id)


async def _store(file_id: str, body: AsyncIterator[bytes], encoding: str | None, runtime: Runtime) -> StoredFile:
    limit = runtime.settings.import_limit
    digest = hashlib.sha256()
    decoder: codecs.IncrementalDecoder | None = None
    taken, position, lines = 0, 0, 0
    sample, waiting = b"", bytearray()
    async for data in _begun(body):
        if taken == 0:
            decoder = _decoder_of(data, encoding)
        digest.update(data)
        taken += len(data)
        if taken > limit:
            raise TooLarge(f"the file is over {limit} bytes unpacked; split it")
        waiting += decoder.decode(data).encode() if decoder else data
        while len(waiting) >= PIECE:
            piece = bytes(waiting[:PIECE])
            del waiting[:PIECE]
            sample = sample or piece
            lines += piece.count(b"\n")
            await _keep(file_id, position, piece, runtime)
            position += len(piece)
    if decoder:
        waiting += decoder.decode(b"", final=True).encode()
    if waiting:
        sample = sample or bytes(waiting)
        lines += waiting.count(b"\n") + (not waiting.endswith(b"\n"))
        await _keep(file_id, position, bytes(waiting), runtime)
        position += len(waiting)
    if position == 0:
        raise Malformed("the file is empty")
    if sample.startswith(_ARCHIVE):
        raise Malformed("this is a workbook or an archive; save the sheet as CSV and send that")
    return StoredFile(file_id, position, lines, digest.hexdigest(), sample)


async def _begun(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A body whose pieces are each long enough to show a mark, however the network has cut it."""
    held = b""
    async for data in body:
        held += data
        if len(held) >= _LONGEST_MARK:
            yield held
            held = b""
    if held:
        yield held


def _decoder_of(beginning: bytes, encoding: str | None) -> codecs.IncrementalDecoder | None:
    """What turns wide characters into text; None where they are bytes each."""
    name = next((name for mark, name in _WIDE.items() if beginning.startswith(mark)), None)
    if name is None and encoding and encoding.startswith(("utf-16", "utf-32")):
        name = encoding if encoding.endswith("e") else f"{encoding}-le"
    if name is None:
        return None
    return codecs.getincrementaldecoder(name)(errors="replace")


async def _keep(file_id: str, position: int, piece: bytes, runtime: Runtime) -> None:
    sealed = await asyncio.to_thread(_sealed, piece, f"{file_id}/{position}", runtime)
    async with runtime.database.reading() as connection:
        await connection.execute(queries.ADD_PIECE, file_id, position, len(piece), sealed)


def _sealed(piece: bytes, label: str, runtime: Runtime) -> bytes:
    return runtime.keys.seal_bytes(zlib.compress(piece, 1), label)


async def piece_at(job: Import, position: int, runtime: Runtime) -> bytes:
    """The bytes of an import's file from a place on, as far as they are kept together; none at its end."""
    assert job.file_bytes is not None
    if position >= job.file_bytes:
        return b""
    async with runtime.database.reading() as connection:
        row = await connection.fetchrow(queries.PIECE, job.file_id, position)
    if row is None:
        return b""  # dropped: somebody ended the import
    label = f"{job.file_id}/{row['position']}"
    piece = zlib.decompress(runtime.keys.open_bytes(row["sealed"], label))
    return piece[position - row["position"] :]


async def _unpacked(request: Request) -> AsyncIterator[bytes]:
    """The body, decompressed as its Content-Encoding says, a bounded piece at a time."""
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", "gzip", "x-gzip"):
        raise NoSuchContentEncoding(f"a body in {coding[:40]!r} cannot be read; send it plain or as gzip")
    try:
        pieces = request.stream() if coding == "identity" else _gunzipped(request.stream())
        async for data in pieces:
            if data:
                yield data
    except zlib.error as exc:
        raise Malformed("the body is not gzip") from exc
    except ClientDisconnect as exc:
        raise Malformed("the connection was closed before the end of the file") from exc


async def _gunzipped(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    unpacker = zlib.decompressobj(_GZIP)
    async for data in body:
        packed = data
        while packed:
            if unpacker.eof:  # files that were packed one by one and put together
                unpacker = zlib.decompressobj(_GZIP)
            yield unpacker.decompress(packed, PIECE)
            packed = unpacker.unconsumed_tail or unpacker.unused_data
    yield unpacker.flush()
    if not unpacker.eof:
        raise Malformed("the gzip body ends too early")
