"""Google's table of traffic sources: which names are search, shopping, video and social sites."""

from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Literal, get_args

SourceCategory = Literal["search", "shopping", "video", "social"]


@cache
def source_categories() -> MappingProxyType[str, SourceCategory]:
    """The category of each source that Google publishes, by its name in lower case."""
    table: dict[str, SourceCategory] = {}
    text = resources.files(__package__).joinpath("source_categories.txt").read_text()
    for section in text.split("\n[")[1:]:
        title, _, names = section.partition("]")
        category = next(known for known in get_args(SourceCategory) if known == title)
        for written in names.split():
            name = written.removesuffix("*").replace("_", " ")
            table[name] = category
            if written.endswith("*"):
                table[f"{name}.com"] = category
    return MappingProxyType(table)
