"""Which spellings mean one company, and which account somebody belongs to."""

from itertools import combinations, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.capture.accounts.domain import Account, Candidate, Clues, by_name, circle, clues_of, has_name_and_site
from services.capture.accounts.inputs import parse_domain
from services.capture.accounts.names import company_key, domain_key
from shared.ids import AccountId

ONE_COMPANY = [
    ("Acme", "ACME", "acme inc", "Acme, Inc.", "Acme GmbH", "ACME GmbH & Co. KG", "Acme Ltd", "Acme Ltd.", "Acme LLC"),
    ("Acme S.A.", "Acme SA", "ACME S.A. de C.V.", "Acme AG", "Acme B.V.", "Acme BV", "Acme Pty Ltd", "Acme Pty. Ltd."),
    ("Acme Co., Ltd.", "Acme Sp. z o.o.", "Acme A/S", "Acme ApS", "Acme AB", "Acme Oy", "Acme s.r.o.", "Acme a.s."),
    ("Acme S.r.l.", "Acme S.p.A.", "Acme SARL", "Acme d.o.o.", "Acme Kft.", "Acme Ltda.", "Acme Private Limited"),
    ("Acme Pvt. Ltd.", "Acme e.K.", "Acme UG (haftungsbeschränkt)", "Acme K.K.", "Acme A.Ş.", "Acme OÜ", "Acme UAB"),
    ("Siemens", "Siemens AG", "SIEMENS Aktiengesellschaft"),
    ("Deutsche Bahn", "Deutsche Bahn AG", "Deutsche Bahn Gesellschaft mit beschränkter Haftung"),
    ("Nestlé S.A.", "NESTLE", "Nestle SA"),
    ("Société Générale SA", "Societe Generale"),
    ("Ørsted A/S", "Orsted"),
    ("Łódź Sp.j.", "Lodz"),
    ("Straße GmbH", "Strasse"),
    ("Procter & Gamble Co.", "Procter and Gamble", "PROCTER & GAMBLE COMPANY"),
    ("Johnson & Johnson", "Johnson and Johnson Inc."),
    ("Ernst & Young LLP", "Ernst und Young GmbH"),
    ("I.B.M. Corp.", "IBM Corporation", "IBM"),
    ("L'Oréal S.A.", "LOreal", "L’Oréal"),
    ("Moët Hennessy – Louis Vuitton SE", "Moet Hennessy Louis Vuitton"),
    ("The Boeing Company", "Boeing"),
    ("トヨタ自動車株式会社", "株式会社トヨタ自動車"),
    ("삼성전자 주식회사", "삼성전자"),
    ("ООО Ромашка", "Ромашка, ООО"),
    ("PT Telkom Indonesia Tbk", "Telkom Indonesia"),
]
NO_FORM_TAKEN_FOR_A_NAME = ["SE", "AG", "Coop", "The", "Co", "C&A", "H&M", "3M", "X Corp.", "AB InBev"]
NOBODY = ["", "  ", "!!!", "n/a", "N.A.", "-", "none", "Self-employed", "Freelancer", "private"]


@pytest.mark.parametrize("spellings", ONE_COMPANY, ids=lambda spellings: spellings[0])
def test_spellings_of_one_company_have_one_key(spellings: tuple[str, ...]) -> None:
    assert len({company_key(one) for one in spellings}) == 1
    assert company_key(spellings[0])


def test_different_companies_have_different_keys() -> None:
    names = [spellings[0] for spellings in ONE_COMPANY if not spellings[0].startswith("Acme")]
    keys = [
        company_key(name) for name in (*names, *NO_FORM_TAKEN_FOR_A_NAME, "Coop Schweiz", "The Who", "Acme Robotics")
    ]
    assert all(keys)
    assert [pair for pair in combinations(keys, 2) if pair[0] == pair[1]] == []


@pytest.mark.parametrize("text", NOBODY)
def test_what_people_write_who_have_no_company_is_none(text: str) -> None:
    assert company_key(text) is None


@given(st.text(max_size=60))
def test_any_text_has_a_key_that_is_its_own_key_or_none(text: str) -> None:
    key = company_key(text)
    assert key is None or 0 < len(key) <= 200
    assert company_key(text.upper()) == company_key(text.upper().lower()) or not text.isascii()


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("acme.com", "acme.com"),
        ("https://www.Acme.co.uk/about?x=1", "acme.co.uk"),
        ("mail.sales.acme.de:8080", "acme.de"),
        ("acme.com.", "acme.com"),
        ("xn--mller-kva.de", "müller.de"),
        ("Müller.de", "müller.de"),
    ],
)
def test_a_domain_is_found_in_what_people_paste(text: str, domain: str) -> None:
    assert parse_domain(text) == domain


@pytest.mark.parametrize(
    "text", ["", "com", "co.uk", "localhost", "a b.com", "ann@acme.com", "gmail.com", "mail.gmail.com"]
)
def test_what_names_no_company_is_no_domain_of_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"domain|mailboxes"):
        parse_domain(text)


def candidate(name: str, country: str | None = None, *parents: str, domains: tuple[str, ...] = ()) -> Candidate:
    ids = tuple(AccountId(parent) for parent in parents)
    return Candidate(AccountId(name), name, company_key(name.partition("#")[0]), country, domains, ids)


def clues(name: str, country: str | None = None, phone: str | None = None, email: str | None = None) -> Clues:
    return clues_of(email, name, country, phone)


def test_an_exact_name_counts_alone_and_a_close_one_with_a_second_sign() -> None:
    acme = candidate("Acme Robotics GmbH", "DE")
    assert by_name(clues("acme robotics"), [acme]).match.matched_by == "name"
    assert by_name(clues("Acme Robotic"), [acme]).match.account_id is None
    assert by_name(clues("Acme Robotic", "DE"), [acme]).match.matched_by == "close_name"
    assert by_name(clues("Acme Robotic", phone="+493012345678"), [acme]).match.matched_by == "close_name"
    assert by_name(clues("Acme Robotic", "AT"), [acme]).match.account_id is None
    assert by_name(clues("Acme Plumbing", "DE"), [acme]).match.account_id is None


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_tie_breakers_decide_the_same_in_every_order(order: tuple[int, ...]) -> None:
    every = [
        candidate("Phoenix#1", "DE", "Phoenix#3"),
        candidate("Phoenix#2", "GB", "Phoenix#3"),
        candidate("Phoenix#3", "US"),
    ]
    some = [every[index] for index in order]
    by_country = by_name(clues("Phoenix", "GB"), some)
    assert (by_country.match.account_id, by_country.tie_breaker) == ("Phoenix#2", "country")
    by_hierarchy = by_name(clues("Phoenix"), some)
    assert (by_hierarchy.match.account_id, by_hierarchy.tie_breaker) == ("Phoenix#3", "hierarchy")
    assert by_name(clues("Phoenix"), some[:2]).match.account_id in (None, "Phoenix#3")
    assert len(by_hierarchy.weighed) == 3


def test_of_two_close_names_the_closer_counts_and_of_two_alike_none() -> None:
    closer, far = candidate("Acme Robotiks", "DE"), candidate("Acme Robotikss", "DE")
    assert by_name(clues("Acme Robotik", "DE"), [far, closer]).match.account_id == "Acme Robotiks"
    twins = [candidate("Acme Robotiks#1", "DE"), candidate("Acme Robotiks#2", "DE")]
    assert by_name(clues("Acme Robotik", "DE"), twins).match.account_id is None


def test_a_domain_named_like_the_company_is_taken_by_its_only_account_without_one() -> None:
    acme = candidate("Acme Robotics GmbH")
    person = clues("Acme Robotics", email="ann@acme-robotics.com")
    assert has_name_and_site(person, [acme]) == acme
    assert has_name_and_site(person, [candidate("Acme Robotics GmbH", domains=("acme.de",))]) is None
    assert has_name_and_site(person, [acme, candidate("Acme Robotics Ltd")]) is None
    assert has_name_and_site(clues("Acme Robotics", email="ann@holding.com"), [acme]) is None
    assert domain_key("acme-robotics.com") == "acmerobotics"


def test_a_circle_is_told_as_a_path() -> None:
    top = Account(AccountId("a"), 1, "A")
    assert circle(top, [(AccountId("b"), "B"), (AccountId("a"), "A"), (AccountId("c"), "C")]) == "A → B → A"
    assert circle(top, [(AccountId("b"), "B"), (AccountId("c"), "C")]) is None
