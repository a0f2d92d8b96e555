"""The ways to unsubscribe and to choose that are added to a message without one, in the language of the message."""

from html import escape

from services.nurture.templates.languages import relative_of

_WORDS = {
    "en": ("You get this because you agreed to.", "Unsubscribe", "Your preferences"),
    "de": ("Sie erhalten dies, weil Sie zugestimmt haben.", "Abmelden", "Ihre Einstellungen"),
    "es": ("Recibe este mensaje porque dio su consentimiento.", "Darse de baja", "Sus preferencias"),
    "fr": ("Vous recevez ce message parce que vous l’avez accepté.", "Se désabonner", "Vos préférences"),
    "it": ("Riceve questo messaggio perché ha dato il consenso.", "Annulla l’iscrizione", "Le sue preferenze"),
    "nl": ("U ontvangt dit omdat u toestemming hebt gegeven.", "Afmelden", "Uw voorkeuren"),
    "pl": ("Otrzymujesz tę wiadomość za swoją zgodą.", "Wypisz się", "Twoje ustawienia"),
    "pt": ("Recebe esta mensagem porque deu o seu consentimento.", "Cancelar subscrição", "As suas preferências"),
}


def _words(language: str) -> tuple[str, str, str]:
    return _WORDS.get(relative_of(language), _WORDS["en"])


def footer_text(language: str) -> str:
    """For a text."""
    why, leave, choose = _words(language)
    more = f"{{% if preferences_url %}}{choose}: {{{{ preferences_url }}}}\n{{% endif %}}"
    return f"\n\n--\n{why} {leave}: {{{{ unsubscribe_url }}}}\n{more}"


def footer_html(language: str) -> str:
    """For HTML."""
    return f'<p style="color:#777;font-size:12px">{_sentence(language)}</p>'


def footer_mjml(language: str) -> str:
    """For MJML."""
    text = f'<mj-text align="center" color="#777777" font-size="12px">{_sentence(language)}</mj-text>'
    return f"<mj-section><mj-column>{text}</mj-column></mj-section>"


def _sentence(language: str) -> str:
    why, leave, choose = _words(language)
    more = f'{{% if preferences_url %}} · <a href="{{{{ preferences_url }}}}">{escape(choose)}</a>{{% endif %}}'
    return f'{escape(why)} <a href="{{{{ unsubscribe_url }}}}">{escape(leave)}</a>{more}'
