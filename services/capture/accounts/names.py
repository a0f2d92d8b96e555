"""Company names as they are compared: without legal form, case, accents and punctuation."""

import re
import unicodedata
from functools import cache, lru_cache

from cleanco.clean import get_unique_terms, remove_accents  # type: ignore[import-untyped]  # ships no types

LONGEST_KEY = 200

# Legal forms that the library does not have, and words that it takes for one though names end in them.
_FORMS_TOO = (
    "Aktiengesellschaft", "Gesellschaft mit beschränkter Haftung", "mbH", "e.K.", "e.Kfm.", "UG",
    "UG haftungsbeschränkt", "KGaA", "Stiftung & Co. KG", "S.A.U.", "S.L.U.", "EOOD", "Tbk", "Sp. z o. o.", "PBC",
    "P.C.", "L.C.", "K.K.", "Kabushiki Kaisha", "Proprietary Limited",
    "Private Limited", "АО", "ЗАО", "ИП", "ТОО", "Anonim Şirketi",
    "Limited Şirketi", "Ltd. Şti.", "Société Anonyme", "Naamloze Vennootschap", "Besloten Vennootschap",
)  # fmt: skip
_NOT_FORMS = frozenset({("at",), ("et",), ("ok",), ("uk",), ("da",), ("nl",), ("sm",), ("private",), ("sp",), ("ps",)})
_BEFORE = frozenset({("ооо",), ("ао",), ("зао",), ("пао",), ("оао",), ("тов",), ("тоо",), ("pt",), ("cv",)})
_GLUED = re.compile("株式会社|有限会社|合同会社|股份有限公司|有限责任公司|有限公司|주식회사|㈜|\\(주\\)|\\(株\\)")
_CONNECTORS = frozenset({"and", "und", "et", "y", "og"})
_NOBODY = frozenset(
    {
        "n a",
        "na",
        "none",
        "null",
        "no",
        "no company",
        "company",
        "my company",
        "unknown",
        "test",
        "self",
        "self employed",
    }
    | {"selfemployed", "freelance", "freelancer", "student", "private", "privat", "personal", "individual", "retired"}
)
_WORD = re.compile(r"\w+")
_ABBREVIATED = re.compile(r"(?<=\b\w)\.(?=\w\b)|(?<=\b\w)\.(?!\w)")


@lru_cache(maxsize=50_000)
def company_key(name: str) -> str | None:
    """The name under which two spellings mean the same company; None for what people write who have none."""
    words = plain_words(_GLUED.sub(" ", unicodedata.normalize("NFKC", name)))
    bare = _without_forms(words)
    if bare[:1] == ("the",) and len(bare) > 1:
        bare = bare[1:]
    kept = tuple(word for word in bare if word not in _CONNECTORS) or bare
    key = " ".join(kept)[:LONGEST_KEY].strip()
    return key if key and key not in _NOBODY else None


def domain_key(domain: str) -> str:
    """What the first part of a registrable domain says about the name, without spaces: `acmerobotics`."""
    return "".join(plain_words(domain.partition(".")[0]))


@lru_cache(maxsize=10_000)
def plain_words(text: str) -> tuple[str, ...]:
    """The words of a text, without case, accents and punctuation."""
    bare = text.lower() if text.isascii() else unicodedata.normalize("NFC", remove_accents(text))
    plain = bare.replace("&", " and ").replace("+", " and ")
    plain = plain.replace("'", "").replace("’", "")
    return tuple(_WORD.findall(_ABBREVIATED.sub("", plain).replace("_", " ")))


def _without_forms(words: tuple[str, ...]) -> tuple[str, ...]:
    forms, longest = _forms()
    bare = words
    while True:
        size = next((n for n in range(min(longest, len(bare) - 1), 0, -1) if bare[-n:] in forms), 0)
        if size:
            bare = bare[:-size]
        elif len(bare) > 1 and bare[-1] in _CONNECTORS:
            bare = bare[:-1]
        elif len(bare) > 1 and bare[:1] in _BEFORE:
            bare = bare[1:]
        else:
            return bare


@cache
def _forms() -> tuple[frozenset[tuple[str, ...]], int]:
    """Every legal form as words, and how many the longest has."""
    forms = frozenset(plain_words(form) for form in (*get_unique_terms(), *_FORMS_TOO)) - _NOT_FORMS - {()}
    return forms, max(map(len, forms))
