"""Rule documents are never overwritten, and what is compiled follows what is active."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.db import Database
from shared.rules import ActiveDocument, DocumentStore, NoSuchVersion
from shared.settings import Settings


async def test_what_is_compiled_follows_activation_and_is_compiled_once(settings: Settings) -> None:
    compiled: list[int] = []

    def compile_it(version: int, document: dict[str, Any]) -> str:
        compiled.append(version)
        return f"{version}:{document['name']}"

    database = Database(settings.database_url.get_secret_value(), "scoring")
    store = DocumentStore("test", {"name": "first"})
    active = ActiveDocument(store, compile_it)
    try:
        async with database.transaction() as tx:
            assert await active.current(tx.connection) == "1:first"
            await store.save(tx.connection, {"name": "second"}, "ann")
            assert await active.current(tx.connection) == "2:second", "seen by the transaction that saved it"
            assert await active.current(tx.connection) == "2:second"
        assert compiled == [1, 2]
        compiled.clear()
        async with database.transaction() as tx:
            assert await active.current(tx.connection) == "2:second"
            await store.activate(tx.connection, 1, "bob")
            assert await active.current(tx.connection) == "1:first"
            await store.activate(tx.connection, 2, "bob", at=datetime.now(UTC) + timedelta(hours=1))
            assert await active.current(tx.connection) == "1:first", "its time has not come"
            await store.activate(tx.connection, 2, "bob")
            assert await active.current(tx.connection) == "2:second"
        assert compiled == [1], "what the other transaction compiled says the same"
    finally:
        await database.close()


async def test_a_version_that_was_taken_back_is_not_taken_for_the_next_one_of_its_number(settings: Settings) -> None:
    database = Database(settings.database_url.get_secret_value(), "scoring")
    store = DocumentStore("test", {"name": "first"})
    active = ActiveDocument(store, lambda _, document: document["name"])
    try:
        with suppress(ZeroDivisionError):
            async with database.transaction() as tx:
                await store.save(tx.connection, {"name": "taken back"}, "ann")
                assert await active.current(tx.connection) == "taken back"
                raise ZeroDivisionError
        async with database.transaction() as tx:
            await store.save(tx.connection, {"name": "second"}, "ann")
        async with database.reading() as connection:
            assert await active.current(connection) == "second"
    finally:
        await database.close()


async def test_documents_of_other_names_are_apart_and_keep_the_order_of_their_fields(settings: Settings) -> None:
    database = Database(settings.database_url.get_secret_value(), "scoring")
    store = DocumentStore("test")
    try:
        async with database.transaction() as tx:
            await store.save(tx.connection, {"z": 1, "a": "\x00", "m": {}}, "ann", "one")
            await store.save(tx.connection, {"b": 1}, "ann", "two", draft=True)
            assert await store.names(tx.connection) == ["one", "two"]
            kept = await store.active(tx.connection, "one")
            assert (list(kept.document), kept.author, kept.version) == (["z", "a", "m"], "ann", 1)
            assert [one.active for one in await store.versions(tx.connection, "two")] == [False]
            with pytest.raises(NoSuchVersion):
                await store.active(tx.connection, "two")
            assert await store.install(tx.connection, {"c": 1}, "one") is False
    finally:
        await database.close()
