"""Columns and cells: which field a title means, and what a cell is in it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capture.exports.cells import guarded, harmless, unguarded
from services.capture.imports.columns import Kind, guessed_mapping, says_who
from services.capture.imports.domain import BadRow, RowMapping
from services.capture.imports.rows import Row


@pytest.mark.parametrize(
    ("titles", "mapping"),
    [
        (("E-Mail", "Vorname", "Nachname"), {"email": "E-Mail", "first_name": "Vorname", "last_name": "Nachname"}),
        (("Email Address", "First Name"), {"email": "Email Address", "first_name": "First Name"}),
        (("Correo electrónico", "Teléfono"), {"email": "Correo electrónico", "phone": "Teléfono"}),
        (("email", "Work Email"), {"email": "email", "attributes.work_email": "Work Email"}),
        (("ID", "email"), {"attributes.id": "ID", "email": "email"}),
        (("line", "reason", "email"), {"email": "email"}),
        (("consent.email", "email"), {"consent.email": "consent.email", "email": "email"}),
    ],
)
def test_titles_are_known_in_many_spellings(titles: tuple[str, ...], mapping: dict[str, str]) -> None:
    assert guessed_mapping("leads", titles) == mapping


def test_an_export_of_ones_own_is_known_as_such() -> None:
    mapping = guessed_mapping("leads", ("lead_id", "email", "captured_at", "created_at", "updated_at"))
    assert mapping == {"email": "email", "captured_at": "captured_at", "occurred_at": "updated_at"}


@pytest.mark.parametrize(
    ("kind", "fields", "known"),
    [
        ("leads", ["company"], False),
        ("leads", ["external_ids.crm"], True),
        ("touches", ["type"], False),
        ("touches", ["lead_id"], True),
        ("costs", ["channel"], True),
    ],
)
def test_rows_must_be_about_something(kind: Kind, fields: list[str], known: bool) -> None:
    assert says_who(kind, fields) is known


def body(kind: Kind, defaults: dict[str, Any] | None = None, **cells: Any) -> dict[str, Any]:
    mapping = {name.replace("__", "."): name for name in cells}
    row = Row(2, 10, 3, dict(cells))
    return dict(RowMapping(kind, tuple(cells), mapping, defaults or {}, "api").told_by(row).body)


@pytest.mark.parametrize(
    ("written", "minor"),
    [
        ("249.90", 24_990),
        ("1,249.90", 124_990),
        ("1.249,90", 124_990),
        ("12,50", 1_250),
        ("1 000", 100_000),
        ("1,000", 100_000),
        ("7", 700),
    ],
)
def test_amounts_are_read_as_people_write_them(written: str, minor: int) -> None:
    assert body("costs", date="2026-11-01", channel="x", amount=written, currency="EUR")["amount_minor"] == minor


@pytest.mark.parametrize("written", ["1.2345", "twelve", "-5", "1,2,3", "€5"])
def test_what_is_no_amount_is_no_guess(written: str) -> None:
    with pytest.raises(BadRow, match="amount"):
        body("costs", date="2026-11-01", channel="x", amount=written, currency="EUR")


def test_cells_fit_their_fields() -> None:
    made = body(
        "leads",
        {"phone_country": "DE", "country": "DE"},
        email=" ann@example.com ",
        phone="0151 12345678",
        name="Ann Lee",
        employees="1,200.0",
        consent__email="yes",
        occurred_at="2026-11-01 10:00",
        attributes__plan="005",
    )
    assert made == {
        "country": "DE",
        "email": "ann@example.com",
        "phone": "+4915112345678",
        "first_name": "Ann",
        "last_name": "Lee",
        "employees": 1_200,
        "consent": {"email": "granted"},
        "occurred_at": "2026-11-01T10:00:00+00:00",
        "attributes": {"plan": "005"},
    }


@given(st.text(alphabet="'=+-@\t\r\nab＝", max_size=6))
def test_a_guarded_cell_is_no_formula_and_comes_back_as_it_was(cell: str) -> None:
    assert guarded(cell)[:1] not in tuple("=+-@\t\r\n＝")
    assert unguarded(guarded(cell)) == cell
    assert unguarded(harmless(cell)) == unguarded(cell)
