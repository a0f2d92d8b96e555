"""Filters answered by PostgreSQL: the same rows as CEL itself chooses."""

import random
from collections.abc import AsyncIterator
from itertools import product

import pytest_asyncio

from services.attribution.reports.conditions import Arguments, condition_sql
from services.attribution.reports.filters import parse_filter
from shared.rules import INTEGER, TEXT, Vocabulary, compile_expression
from shared.settings import Settings
from shared.testing import Harness, harness
from throughline.services import service_code

FIELDS = Vocabulary({"channel": TEXT, "campaign": TEXT, "value_minor": INTEGER})
TEXTS = [
    "Email",
    "email",
    "(not set)",
    "a-b_c",
    "Ökologie",
    "x\ny",
    "",
    "50% off",
    "it's",
    "\\d",
    "zz 9",
    "\nä",
    "a\u00a0b",
]
NUMBERS = [-1, 0, 1, 99, 10**12]
PATTERNS = [
    "^E",
    "mail$",
    "(?i)^EMAIL$",
    "[a-c]-",
    r"\\d",
    r"\\bset\\b",
    "^$",
    "a.b",
    "^[^E]",
    "(?:x|z)+",
    "[[:digit:]]%?",
    "ö",
    "[^[:alpha:]]",
    "^[[:lower:][:space:]]+$",
    "[[:punct:]]|[[:alnum:]-z]$",
    "^.$",
    "^[^x]+$",
]


@pytest_asyncio.fixture
async def attribution(settings: Settings) -> AsyncIterator[Harness]:
    async with harness(service_code("attribution"), settings) as service:
        yield service


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return f"'{escaped}'"


def random_filter(dice: random.Random, depth: int = 3) -> str:
    """Any filter that the language allows."""
    match dice.choice(["text", "number", "in", "method", "matches", "fields", "and", "or", "not"][: 9 if depth else 6]):
        case "text":
            pair = [dice.choice(["channel", "campaign"]), quoted(dice.choice(TEXTS))]
            dice.shuffle(pair)
            return dice.choice(["==", "!=", "<", "<=", ">", ">="]).join(pair)
        case "number":
            return f"value_minor {dice.choice(['==', '!=', '<', '<=', '>', '>='])} {dice.choice(NUMBERS)}"
        case "in":
            if dice.random() < 0.3:
                return f"value_minor in {dice.sample(NUMBERS, dice.randrange(3))}"
            return f"channel in [{', '.join(map(quoted, dice.sample(TEXTS, dice.randrange(4))))}]"
        case "method":
            text = dice.choice(TEXTS)[: dice.randrange(4)]
            return f"campaign.{dice.choice(['contains', 'startsWith', 'endsWith'])}({quoted(text)})"
        case "matches":
            return f"channel.matches('{dice.choice(PATTERNS)}')"
        case "fields":
            return f"channel {dice.choice(['==', '<'])} campaign"
        case "and":
            return f"({random_filter(dice, depth - 1)}) && {random_filter(dice, depth - 1)}"
        case "or":
            return f"{random_filter(dice, depth - 1)} || {random_filter(dice, depth - 1)}"
        case _:
            return f"!({random_filter(dice, depth - 1)})"


async def test_postgresql_chooses_what_cel_chooses(attribution: Harness) -> None:
    dice = random.Random(5)
    rows = list(product(TEXTS, TEXTS, NUMBERS))
    values = [dict(zip(("channel", "campaign", "value_minor"), row, strict=True)) for row in rows]
    columns = {"channel": "channel", "campaign": "campaign", "value_minor": "value_minor"}
    chosen = set()
    async with attribution.runtime.database.reading() as connection:
        for _ in range(400):
            source = random_filter(dice)
            arguments = Arguments(*map(list, zip(*rows, strict=True)))
            where = condition_sql(parse_filter(source, FIELDS), columns, arguments)
            found = await connection.fetch(
                "SELECT channel, campaign, value_minor FROM unnest($1::text[], $2::text[], $3::bigint[])"
                f" AS row (channel, campaign, value_minor) WHERE {where}",
                *arguments.values,
            )
            expression = compile_expression(source, FIELDS)
            expected = [row for row, value in zip(rows, values, strict=True) if expression.value(value)]
            assert [tuple(row.values()) for row in found] == expected, source
            chosen.add(len(expected))
    assert len(chosen) > 50
