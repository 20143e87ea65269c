"""What agents.yml says of command rules, as the core knows them."""

from collections.abc import Collection

from kapelle.apps import models
from kapelle.core.errors import Mistake
from kapelle.core.rules import EVERY, Rules, parse


def rules_of(given: models.Rules) -> Rules:
    """Return the rules that *given* means."""
    builtin = ((EVERY, "off"),) if isinstance(given.builtin, str) else tuple(given.builtin.items())
    return Rules(
        deny=tuple(given.deny),
        ask=tuple(given.ask),
        builtin=builtin,
        deadline=given.deadline,
        default=given.default,
    )


def misnamed(rules: models.Rules, tools: Collection[str], here: tuple[str, ...]) -> list[Mistake]:
    """Return the rules at *here* whose tool is none of *tools*, and is nearly called as one of them: they would never hold.

    A name that is like none may be that of a tool to come, or of a program's own.
    """
    wrong: list[Mistake] = []
    by_small = {name.lower(): name for name in tools}
    for key, texts in (("deny", rules.deny), ("ask", rules.ask)):
        for index, text in enumerate(texts):
            tool = parse(text)[0]
            if tool in tools or tool.startswith("mcp__") or set(tool) & set("*?["):
                continue
            from difflib import get_close_matches  # loaded when somebody names what nobody knows

            if near := get_close_matches(tool.lower(), by_small, n=1, cutoff=0.75):
                message = f"no tool is called {tool}: the rule {text} would never hold"
                advice = f"write {text.replace(tool, by_small[near[0]], 1)}"
                wrong.append(Mistake(message=message, advice=advice, path=(*here, "rules", key, index)))
    return wrong
