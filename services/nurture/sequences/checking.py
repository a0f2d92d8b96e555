"""What a step says about the world outside of its sequence: templates, fields of the lead, places, weights. Pure."""

from collections.abc import Iterator, Sequence
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from services.nurture.sequences.document import PERSONS_ZONE, Step
from services.nurture.templates.check import faults_of_template, unfit_parts
from services.nurture.templates.document import Template
from shared.errors import FieldError
from shared.ids import SequenceId
from shared.profiles import LEAD
from shared.rules import INTEGER, TEXT

ATTRIBUTE = "attributes."
TOLD_BY_OTHERS = frozenset({"email", "phone", "free_mail", "attributes", "consent"})
"""What a step cannot say of a lead: who it is, and what follows from other things or has to be said by the person."""
UPDATABLE = {name: kind for name, kind in LEAD.items() if name not in TOLD_BY_OTHERS}
READABLE = frozenset(LEAD) - {"consent", "attributes"}
ALL_OF_THEM = 100
LONGEST_TEXT = 500
"""As capture takes it."""


def step_faults(step: Step, place: str, sequence_id: SequenceId) -> list[FieldError]:
    """What is wrong with a step by itself."""
    faults: list[FieldError] = []
    for where, template in _templates(step):
        at = f"{place}/{where}/template"
        if step.send is not None:
            faults += unfit_parts(template, step.send.channel, at)
        faults += faults_of_template(template, at)
    if step.notify is not None:
        words = Template(subject=step.notify.subject, text=step.notify.text)
        faults += faults_of_template(words, f"{place}/notify", parts=False)
    if step.wait_until is not None:
        faults += _zone_faults(step.wait_until.zone, f"{place}/wait_until/zone")
        faults += _unreadable([step.wait_until.date], f"{place}/wait_until/date")
    if step.webhook is not None:
        for number, name in enumerate(step.webhook.fields):
            faults += _unreadable([name], f"{place}/webhook/fields/{number}")
    faults += _split_faults(step, f"{place}/split")
    faults += _update_faults(step, f"{place}/update")
    for other, where in ((step.enrol, "enrol"), (step.remove, "remove")):
        if other is not None and other.sequence == sequence_id:
            faults.append(
                FieldError(f"{place}/{where}/sequence", "is this sequence itself; a loop or an exit does that")
            )
    return faults


def _templates(step: Step) -> Iterator[tuple[str, Template]]:
    if step.send is not None and step.send.template is not None:
        yield "send", step.send.template
    for number, variant in enumerate(step.experiment.variants if step.experiment is not None else ()):
        if variant.template is not None:
            yield f"experiment/variants/{number}", variant.template


def experiment_faults(steps: Sequence[Step]) -> list[FieldError]:
    """Experiments that cannot be told apart."""
    known: set[str] = set()
    faults = []
    for index, step in enumerate(steps):
        if step.experiment is not None:
            if step.experiment.id in known:
                why = f"{step.experiment.id} is the id of an earlier experiment as well"
                faults.append(FieldError(f"/steps/{index}/experiment/id", why))
            known.add(step.experiment.id)
    return faults


def _zone_faults(zone: str, place: str) -> list[FieldError]:
    if zone == PERSONS_ZONE or known_zone(zone) is not None:
        return []
    return [FieldError(place, f"is neither {PERSONS_ZONE} nor a time zone such as Europe/Berlin")]


def known_zone(name: str) -> ZoneInfo | None:
    """The time zone of this name; None where there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def _unreadable(names: list[str | None], place: str) -> list[FieldError]:
    return [
        FieldError(place, f"a lead has no field {name}; what is your own is attributes.<name>")
        for name in names
        if name is not None and name not in READABLE and not name.startswith(ATTRIBUTE)
    ]


def _split_faults(step: Step, place: str) -> list[FieldError]:
    if step.split is None:
        return []
    faults = []
    total = sum(share.weight for share in step.split)
    if total != ALL_OF_THEM:
        faults.append(FieldError(place, f"the weights are {total} together, and must be {ALL_OF_THEM}"))
    names = [share.id for share in step.split]
    faults += [
        FieldError(f"{place}/{number}/id", f"{name} is the id of an earlier variant as well")
        for number, name in enumerate(names)
        if name in names[:number]
    ]
    return faults


def _update_faults(step: Step, place: str) -> list[FieldError]:
    faults = []
    for name, value in (step.update or {}).items():
        if name.startswith(ATTRIBUTE):
            continue
        kind = UPDATABLE.get(name)
        if kind is None:
            why = "is told by others" if name in TOLD_BY_OTHERS else "is no field of a lead"
            faults.append(
                FieldError(f"{place}/{name}", f"{why}; a step may say {', '.join(UPDATABLE)} or attributes.<name>")
            )
        elif (kind is TEXT and not isinstance(value, str)) or (kind is INTEGER and type(value) is not int):
            faults.append(FieldError(f"{place}/{name}", f"is not a {kind.value}"))
        elif isinstance(value, str) and len(value) > LONGEST_TEXT:
            faults.append(FieldError(f"{place}/{name}", f"has more than {LONGEST_TEXT} characters"))
        elif isinstance(value, int) and value < 0:
            faults.append(FieldError(f"{place}/{name}", "is less than nothing"))
    return faults
