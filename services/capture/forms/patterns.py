"""Patterns of a form's owner, run over what anybody on the internet types: by an engine whose time is linear."""

from shared.rules import TEXT, Vocabulary, compile_expression

_WHOLE = compile_expression("text.matches(pattern)", Vocabulary({"text": TEXT, "pattern": TEXT}))


def pattern_fault(pattern: str) -> str | None:
    """Why a pattern is none, or None."""
    try:
        _WHOLE.value({"text": "", "pattern": _whole(pattern)})
    except (RuntimeError, ValueError) as exc:
        reasons = [line for line in map(str.strip, str(exc).splitlines()) if line.startswith("error: ")]
        reason = reasons[0].removeprefix("error: ").partition(".")[0] if reasons else "it is too large"
        return f"is no regular expression that can be run here: {reason}"
    return None


def matches(pattern: str, text: str) -> bool:
    """Whether a whole text is as the pattern says."""
    return bool(_WHOLE.value({"text": text, "pattern": _whole(pattern)}))


def _whole(pattern: str) -> str:
    return rf"\A(?:{pattern})\z"
