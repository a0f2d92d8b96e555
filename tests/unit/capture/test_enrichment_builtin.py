"""What follows from what is told, and which of several statements about a field counts."""

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capture.enrichment.builtin import BUILT_IN, derive
from services.capture.enrichment.countries import country_code
from services.capture.enrichment.names import cased
from services.capture.enrichment.titles import department_of, seniority_of
from services.capture.leads.domain import Statement, Statements, counting, found_name, learn, profile_of, together
from shared.settings import Settings

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def found(value: Any, **options: Any) -> Statement:
    return Statement(value, options.pop("at", NOON), "enrichment:p", options.pop("confidence", 0.5), **options)


def derived(known: dict[str, Any]) -> dict[str, Any]:
    return {each.field: each.value for each in derive(known)}


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("MCDONALD-VAN DER BERG", "McDonald-van der Berg"),
        ("o'brien", "O'Brien"),
        ("DE LA CRUZ", "de la Cruz"),
        ("ØSTERGÅRD", "Østergård"),
        ("von goethe", "von Goethe"),
        ("D'ARCY III", "D'Arcy III"),
        ("müller-lüdenscheidt", "Müller-Lüdenscheidt"),
        ("ΠΑΠΑΔΟΠΟΥΛΟΣ", "Παπαδοπουλος"),
        ("VAN", "Van"),
        ("McLeod", "McLeod"),
        ("van der Berg", "van der Berg"),
        ("straße", "Straße"),
        ("李小龍", "李小龍"),
        ("", ""),
        ("mc", "mc"),
        ("A" * 500, "A" * 500),
    ],
)
def test_a_family_name_in_one_case_is_written_as_names_are(written: str, right: str) -> None:
    assert cased(written, family=True) == right


@pytest.mark.parametrize(
    ("written", "right"),
    [("NORA", "Nora"), ("jean-luc", "Jean-Luc"), ("JP", "JP"), ("MARIA DEL CARMEN", "Maria Del Carmen")],
)
def test_a_first_name_has_no_particles(written: str, right: str) -> None:
    assert cased(written, family=False) == right


@given(st.text(max_size=60), st.booleans())
def test_casing_changes_nothing_but_case_and_is_done_once(name: str, family: bool) -> None:
    once = cased(name, family=family)
    assert once.casefold() == name.casefold() or len(once) == len(name)
    assert cased(once, family=family) == once or not (once.isupper() or once.islower())


COUNTRIES = {
    "Germany": "DE",
    "deutschland": "DE",
    "UK": "GB",
    "U.S.A.": "US",
    "The Netherlands": "NL",
    "Türkei": "TR",
    "DEU": "DE",
    " Viet  Nam ": "VN",
    "Atlantis": None,
    "": None,
}


@pytest.mark.parametrize(("written", "code"), COUNTRIES.items())
def test_a_country_is_known_by_its_names(written: str, code: str | None) -> None:
    assert country_code(written) == code


@pytest.mark.parametrize(
    ("title", "seniority", "department"),
    [
        ("VP of Sales", "vp", "sales"),
        ("Vice President, Engineering", "vp", "engineering"),
        ("Geschäftsführer", "c_level", "management"),
        ("Head of Marketing", "director", "marketing"),
        ("Assistant to the CEO", "entry", "management"),
        ("HR Business Partner", None, "people"),
        ("Senior Software Engineer", "senior", "engineering"),
        ("Customer Success Manager", "manager", "support"),
        ("Wizard", None, None),
    ],
)
def test_a_title_tells_how_senior_and_where(title: str, seniority: str | None, department: str | None) -> None:
    assert (seniority_of(title), department_of(title)) == (seniority, department)


def test_a_phone_tells_the_country_and_the_time_zone_and_an_email_what_it_is() -> None:
    known = derived({"phone": "+493012345678", "email": "ann@acme.co.uk"})
    assert (known["country"], known["attributes.time_zone"]) == ("DE", "Europe/Berlin")
    assert (known["attributes.company_domain"], known["attributes.free_mail"]) == ("acme.co.uk", False)
    throwaway = derived({"phone": "+18005551234", "email": "x@mailinator.com"})
    assert (throwaway["attributes.disposable_mail"], throwaway["attributes.free_mail"]) == (True, True)
    assert not {"attributes.time_zone", "attributes.time_zones", "attributes.company_domain"} & throwaway.keys()


def test_what_is_told_is_kept_and_what_follows_does_not_replace_it() -> None:
    told = learn(
        {},
        {
            "phone": "+493012345678",
            "country": "austria",
            "last_name": "MCDONALD",
            "attributes.time_zone": "Europe/Vienna",
        },
        NOON,
        "api",
    )
    profile = profile_of(told)
    assert (profile.country, profile.last_name) == ("AT", "McDonald")
    assert (profile.attributes, "time_zone" in profile.derived) == ({"time_zone": "Europe/Vienna"}, False)
    assert (told["country"].value, told["last_name"].value) == ("austria", "MCDONALD")
    taken_back = learn(told, {"country": None}, NOON + timedelta(hours=1), "api")
    assert profile_of(taken_back).country is None


@pytest.mark.parametrize("name", BUILT_IN)
def test_each_can_be_switched_off(name: str) -> None:
    known = {"phone": "+493012345678", "email": "a@acme.com", "first_name": "ANN", "title": "CEO"}
    known |= {"country": "austria"} if name == "countries" else {}
    assert [each for each in derive(known) if each.by == name]
    assert not [each for each in derive(known, frozenset({name})) if each.by == name]
    annotation = str(Settings.model_fields["enrichment_off"].annotation)
    assert name in annotation


def test_what_somebody_told_counts_before_what_was_found_unless_that_may_overwrite() -> None:
    told = learn({}, {"industry": "Told"}, NOON, "api")
    filling = {**told, found_name("p", "industry"): found("Found", confidence=1.0, at=NOON + timedelta(days=9))}
    assert profile_of(filling).industry == "Told"
    assert profile_of({**filling, found_name("q", "industry"): found("Over", overwrite=True)}).industry == "Over"
    assert profile_of({found_name("p", "industry"): found("Found")}).industry == "Found"
    assert profile_of({**filling, **learn(filling, {"industry": None}, NOON + timedelta(1), "api")}).industry is None


def test_of_several_findings_the_first_provider_counts_then_the_surer_then_the_newer() -> None:
    def best(*candidates: Statement) -> Any:
        return counting({found_name(f"p{n}", "industry"): each for n, each in enumerate(candidates)})["industry"].value

    assert best(found("a", order=2, confidence=0.9), found("b", order=1, confidence=0.1)) == "b"
    assert best(found("a", confidence=0.2), found("b", confidence=0.3)) == "b"
    assert best(found("a"), found("b", at=NOON + timedelta(hours=1))) == "b"
    assert best(found(None, order=1), found("b", order=2)) == "b"


_STATEMENTS = st.builds(
    Statement,
    st.sampled_from(["x", "y", None]),
    st.integers(0, 3).map(lambda hours: NOON + timedelta(hours=hours)),
    st.just("o"),
    st.sampled_from([None, 0.2, 0.9]),
    st.integers(0, 2),
    st.booleans(),
)
_NAMES = st.sampled_from(["industry", *(found_name(p, "industry") for p in "pqr")])


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.dictionaries(_NAMES, _STATEMENTS, max_size=4)),
        max_size=3,
        unique_by=lambda row: row[0],
    )
)
def test_what_counts_is_the_same_in_every_order(rows: list[tuple[str, Statements]]) -> None:
    results = [counting(together(order)) for order in permutations(rows)]
    assert all(result == results[0] for result in results)
    flipped = {name: results[0][name] for name in reversed(list(results[0]))}
    assert counting(flipped) == results[0]
