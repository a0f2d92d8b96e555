"""Touches that name a browser and a person: each tells that the one belongs to the other, but not every second."""

from collections import OrderedDict
from datetime import datetime, timedelta

from shared.ids import LeadId

WITHIN = timedelta(seconds=60)
REMEMBERED = 10_000


class ToldLinks:
    """The newest link of each browser that this process told.

    A page sends many touches with both ids. Telling the same person again within a minute says nothing new: whoever
    was linked last at a moment is the same with it and without it, unless another process told of somebody else in
    that minute.
    """

    def __init__(self) -> None:
        self._newest: OrderedDict[LeadId, tuple[datetime, LeadId]] = OrderedDict()

    def is_news(self, anonymous_id: LeadId, lead_id: LeadId, at: datetime) -> bool:
        """Whether a link has to be told."""
        newest = self._newest.get(anonymous_id)
        return newest is None or newest[1] != lead_id or not newest[0] <= at < newest[0] + WITHIN

    def was_told(self, anonymous_id: LeadId, lead_id: LeadId, at: datetime) -> None:
        """Remember a link that is committed."""
        newest = self._newest.get(anonymous_id)
        if newest is None or newest[0] <= at:
            self._newest[anonymous_id] = (at, lead_id)
            self._newest.move_to_end(anonymous_id)
        if len(self._newest) > REMEMBERED:
            self._newest.popitem(last=False)
