"""Which field a column of a file holds, by its title, in the spellings and languages that files come in."""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Literal

from services.capture.adapters.fields import CONSENT_CHANNELS, TEXT_FIELDS
from services.capture.facts.inputs import ConversionInput, CostInput, TouchFields, TouchInput

Kind = Literal["leads", "touches", "conversions", "costs"]
KINDS: tuple[Kind, ...] = ("leads", "touches", "conversions", "costs")
MARKS = ("line", "reason")
"""What the file of bad rows has before their own columns."""

_TIMES = "timestamp time date datetime eventtime eventdate occurred createdat zeitpunkt datum fecha"
_TITLES: Mapping[Kind, Mapping[str, str]] = {
    "leads": {
        "email": "emailaddress mail mailaddress emailadresse emailid workemail businessemail primaryemail contactemail "
        "epost correo correoelectronico courriel adressemail adresseemail email1value eposta",
        "phone": "phonenumber mobile mobilephone mobilephonenumber mobilenumber telephone tel telefon telefonnummer "
        "telefonnr rufnummer handy handynummer mobil mobiltelefon mobilnummer cell cellphone workphone phone1value "
        "contactnumber telefono telefone celular portable numerodetelephone",
        "first_name": "fname givenname forename first vorname prenom nombre nome rufname",
        "last_name": "lname surname familyname last nachname familienname zuname nomdefamille apellido apellidos "
        "cognome sobrenome",
        "name": "fullname contactname contact displayname vollername ansprechpartner nomcomplet nombrecompleto",
        "company": "companyname organization organisation organizationname organisationname businessname employer "
        "accountname firma firmenname unternehmen entreprise societe empresa azienda",
        "title": "jobtitle position role jobrole berufsbezeichnung stellenbezeichnung funktion poste fonction cargo",
        "country": "countrycode countryregion land pays pais paese",
        "region": "state stateregion stateprovince province bundesland provincia",
        "industry": "branche sector secteur",
        "employees": "employeecount numberofemployees headcount companysize mitarbeiter mitarbeiterzahl",
        "annual_revenue": "revenue annualsales umsatz jahresumsatz",
        "consent.email": "emailconsent emailoptin newsletter newsletteroptin marketingconsent marketingoptin optin "
        "subscribed acceptsmarketing",
        "consent.sms": "smsconsent smsoptin",
        "consent.whatsapp": "whatsappconsent whatsappoptin",
        "touch.source": "utmsource",
        "touch.medium": "utmmedium",
        "touch.campaign": "utmcampaign",
        "touch.content": "utmcontent",
    },
    "touches": {
        "email": "emailaddress mail emailadresse",
        "type": "event eventtype eventname activity activitytype",
        "url": "pageurl page pagelocation landingpage",
        "referrer": "referer pagereferrer",
        "source": "utmsource",
        "medium": "utmmedium",
        "campaign": "utmcampaign campaignname",
        "content": "utmcontent",
        "touch_id": "eventid",
        "occurred_at": _TIMES,
    },
    "conversions": {
        "email": "emailaddress mail emailadresse",
        "external_id": "id orderid ordernumber transactionid invoiceid dealid bestellnummer",
        "type": "event conversiontype conversionname",
        "value": "amount revenue total totalprice price betrag umsatz",
        "value_minor": "amountminor",
        "currency": "currencycode waehrung wahrung",
        "occurred_at": f"{_TIMES} orderdate closedate",
    },
    "costs": {
        "date": "day reportingstarts datum tag",
        "channel": "platform kanal",
        "campaign": "campaignname kampagne",
        "amount": "cost costs spend amountspent kosten betrag ausgaben",
        "amount_minor": "costminor spendminor",
        "currency": "currencycode waehrung wahrung",
    },
}
_OBJECTS: Mapping[Kind, tuple[str, ...]] = {
    "leads": ("attributes", "consent", "external_ids"),
    "touches": ("properties",),
    "conversions": (),
    "costs": (),
}
_GROUPS: Mapping[Kind, tuple[str, ...]] = {
    "leads": ("attributes.", "external_ids.", "touch.properties."),
    "touches": ("properties.",),
    "conversions": (),
    "costs": (),
}
_TOUCH_OF_LEAD = {f"touch.{name}" for name in TouchFields.model_fields if name != "properties"}
FIELDS: Mapping[Kind, frozenset[str]] = {
    "leads": TEXT_FIELDS
    | {"email", "phone", "name", "employees", "annual_revenue", "occurred_at", "captured_at"}
    | {f"consent.{channel}" for channel in CONSENT_CHANNELS}
    | _TOUCH_OF_LEAD
    | set(_OBJECTS["leads"]),
    "touches": frozenset(TouchInput.model_fields),
    "conversions": frozenset(ConversionInput.model_fields) | {"value"},
    "costs": frozenset(CostInput.model_fields) | {"amount"},
}
"""The fields by name; those of one's own making come below a group."""

# Of our own export: what is told here by other columns, or by nobody.
_OWN_EXPORT = frozenset({"lead_id", "lead_ids", "revision", "captured_at", "created_at", "updated_at"})
_IDENTIFYING = {"leads": {"email", "phone", "external_id", "anonymous_id"}, "costs": {"date", "channel"}}
_OF_FACTS = {"email", "lead_id", "anonymous_id"}


def field_fault(kind: Kind, field: str) -> str | None:
    """Why nothing can be put into a field of this name."""
    if field in FIELDS[kind] or any(field.startswith(group) and field != group for group in _GROUPS[kind]):
        return None
    own = ", ".join(f"{group}<name>" for group in _GROUPS[kind])
    offered = ", ".join(sorted(FIELDS[kind]))
    return f"{kind} have no field {field[:100]!r}; there are {offered}" + (f", and {own}" if own else "")


def says_who(kind: Kind, fields: Iterable[str]) -> bool:
    """Whether rows with these fields can be about anything at all."""
    given = {field.partition(".")[0] for field in fields}
    return bool(given & (_IDENTIFYING.get(kind, _OF_FACTS) | {"external_ids"}))


def guessed_mapping(kind: Kind, columns: Iterable[str]) -> dict[str, str]:
    """Where fields stand, by the titles of columns. A column that no field is known for is kept as one of its own."""
    columns = [column for column in columns if column not in MARKS]
    mapping: dict[str, str] = {}
    left: list[str] = []
    own_export = kind == "leads" and {"lead_id", "captured_at", "updated_at"} <= set(columns)
    for column in columns:
        field = _guessed(kind, column, own_export=own_export)
        if field is None or field in mapping:
            left.append(column)
        else:
            mapping[field] = column
    group = next(iter(_GROUPS[kind]), None)
    for column in left:
        if group is None or (own_export and column in _OWN_EXPORT):
            continue
        mapping.setdefault(f"{group}{_snake(column)}", column)
    return mapping


def _guessed(kind: Kind, column: str, *, own_export: bool) -> str | None:
    if own_export and column in ("captured_at", "updated_at"):
        return "captured_at" if column == "captured_at" else "occurred_at"
    if field_fault(kind, column) is None and not (kind == "leads" and column == "captured_at"):
        return column
    return _BY_TITLE[kind].get(_squeezed(column))


def _squeezed(title: str) -> str:
    plain = unicodedata.normalize("NFKD", title.lower().replace("ß", "ss"))
    return re.sub(r"[^a-z0-9]", "", plain)


def _snake(title: str) -> str:
    return re.sub(r"\W+", "_", title.lower()).strip("_")[:100] or "column"


def _table(kind: Kind) -> dict[str, str]:
    named = {
        re.sub(r"[^a-z0-9]", "", name): name for name in sorted(FIELDS[kind]) if name not in ("captured_at", "touch_id")
    }
    return {title: field for field, titles in _TITLES[kind].items() for title in titles.split()} | named


_BY_TITLE = {kind: _table(kind) for kind in KINDS}
