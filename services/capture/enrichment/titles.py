"""What a job title tells: how senior somebody is, and in which department; the first line that fits counts.

Words are compared whole and without case. Titles that say two things have the more senior one; a deputy or assistant of
somebody is neither of them.
"""

import re

_SENIORITY = (
    ("entry", "intern trainee apprentice werkstudent praktikant stagiaire student graduate junior assistant assistenz"),
    ("owner", "founder cofounder co-founder owner inhaber gründer fondateur proprietor partner gesellschafter"),
    (
        "c_level",
        (
            "ceo cto cfo coo cmo cio cpo cro chro ciso cdo cso chief president geschäftsführer geschäftsführerin "
            "vorstand pdg dg md"
        ),
    ),
    ("vp", "vp svp evp avp vice-president vicepresident"),
    ("director", "director directeur directrice direktor direktorin head leiter leiterin bereichsleiter responsable"),
    ("manager", "manager managerin lead supervisor teamleiter teamleiterin superintendent principal chef"),
    ("senior", "senior sr expert specialist architect staff"),
)
_TWO_WORDS = (
    ("vice president", "vice-president"),
    ("managing director", "ceo"),
    ("general manager", "director"),
    ("team lead", "manager"),
    ("human resources", "hr"),
    ("customer success", "customer-success"),
    ("customer service", "support"),
    ("information technology", "it"),
    ("business development", "sales"),
    ("public relations", "marketing"),
    ("supply chain", "operations"),
    ("product marketing", "marketing"),
    ("product owner", "product"),
    ("business partner", "advisor"),
    ("account executive", "sales"),
    ("account manager", "sales manager"),
    ("co founder", "founder"),
)
_DEPARTMENTS = (
    ("marketing", "cmo marketing growth brand demand communications seo content kommunikation"),
    ("sales", "cro sales vertrieb revenue commercial ventes ventas presales"),
    (
        "finance",
        "cfo finance financial accounting accountant controller controlling treasurer finanzen buchhaltung audit",
    ),
    ("people", "chro hr people talent recruiter recruiting personalleiter personalleiterin rh"),
    ("legal", "legal counsel lawyer attorney compliance privacy jurist recht"),
    ("procurement", "procurement purchasing buyer sourcing einkauf einkäufer achats"),
    ("support", "support helpdesk customer-success service kundendienst"),
    ("product", "cpo product produkt"),
    ("design", "design designer ux ui creative"),
    ("data", "cdo data analytics analyst bi statistician"),
    ("security", "ciso security sicherheit"),
    ("it", "cio it sysadmin administrator infrastructure network edv informatik"),
    (
        "engineering",
        (
            "cto engineering engineer developer entwickler software devops sre technical technology technik architect "
            "programmer qa r&d research entwicklung"
        ),
    ),
    ("operations", "coo operations logistics manufacturing production warehouse facility betrieb produktion"),
    ("education", "teacher professor lecturer dozent lehrer dean"),
    (
        "management",
        "ceo chief president founder owner geschäftsführer geschäftsführerin vorstand inhaber gründer pdg dg",
    ),
)
_SENIORITY_OF = [(rank, frozenset(words.split())) for rank, words in _SENIORITY]
_DEPARTMENT_OF = [(name, frozenset(words.split())) for name, words in _DEPARTMENTS]
_WORD = re.compile(r"[\w&-]+")
LONGEST = 200


def seniority_of(title: str) -> str | None:
    """How senior: owner, c_level, vp, director, manager, senior or entry; None where the title does not say."""
    return _first(_SENIORITY_OF, title)


def department_of(title: str) -> str | None:
    """The department, such as sales or engineering; None where the title does not say."""
    return _first(_DEPARTMENT_OF, title)


def _first(table: list[tuple[str, frozenset[str]]], title: str) -> str | None:
    text = re.sub(r"[./,]", " ", title[:LONGEST].lower().replace("c.e.o", "ceo"))
    text = f" {' '.join(text.split())} "
    for two, one in _TWO_WORDS:
        text = text.replace(f" {two} ", f" {one} ")
    words = set(_WORD.findall(text))
    return next((meaning for meaning, known in table if not words.isdisjoint(known)), None)
