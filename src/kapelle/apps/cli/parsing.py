"""What the option parser refuses, told as every other error: what is wrong, and what to write instead.

Loaded when there is something to tell. The parser's own words are not ours, so they are made anew from what it knows.
"""

import sys
from typing import Any

from pydantic import ValidationError
from typer._click import exceptions as refused  # typer keeps its own copy, and names it nowhere else

from kapelle.core.errors import UsageError, closest
from kapelle.core.expected import expected, given


def told(error: refused.ClickException) -> UsageError:
    """Return what the option parser refused as an error of ours."""
    context: Any = getattr(error, "ctx", None)
    path = context.command_path if context is not None else _command()
    message, remedy = _told(error, context)
    return UsageError(message, remedy=f"{remedy}`{path} --help` tells what can be given.")


def _command() -> str:
    """Return which command was meant, where the parser does not say it: it broke off before it knew."""
    from kapelle.apps.cli.commands import Commands

    word = sys.argv[1] if len(sys.argv) > 1 else ""
    return f"kapelle {word}" if word in Commands() else "kapelle"


def _told(error: refused.ClickException, context: Any) -> tuple[str, str]:
    match error:
        case refused.NoArgsIsHelpError():
            return "a command is missing", ""
        case refused.NoSuchOption():
            known = error.possibilities or []
            if error.option_name[1:].isdecimal():
                return f"{error.option_name} is below zero, which nothing here can be", "Write a number that is not. "
            return (
                f"there is no option {error.option_name}",
                f"{closest(error.option_name, known).capitalize()}. " if known else "",
            )
        case refused.MissingParameter() if error.param is not None:
            kind = "argument" if error.param.param_type_name == "argument" else "option"
            return f"the {kind} {_name(error.param)} is missing", ""
        case refused.BadParameter() if isinstance(error.__cause__, ValidationError) and error.param is not None:
            first = error.__cause__.errors()[0]
            words = _words(error.param)
            if words:
                return f"this cannot be {given(first['input'])}", f"Write {words}. "
            if words := str(first["msg"]).partition(" is not one of ")[2]:
                advice = f"Give one of: {words.replace(chr(39), '').rstrip('.')}. "
                return f"{_name(error.param)} cannot be {given(first['input'])}", advice
            return (
                f"{_name(error.param)} cannot be {given(first['input'])}",
                f"Give {expected(first['type'], first.get('ctx', {}))}. ",
            )
        case refused.BadOptionUsage():
            needs = "requires" in error.message
            return f"the option {error.option_name} {'needs a value' if needs else 'takes no value'}", ""
        case _:
            return _told_of_words(error.format_message(), context)


def _told_of_words(said: str, context: Any) -> tuple[str, str]:
    """Return what the parser told in words only."""
    if said.startswith("No such command"):
        word = said.split("'")[1] if said.count("'") > 1 else ""
        known: Any = getattr(context.command, "commands", {}) if context is not None else {}
        return f"there is no command {word}", f"{closest(word, known).capitalize()}. " if known else ""
    if said.startswith("Got unexpected extra argument"):
        words = said.partition("(")[2].partition(") (")[2].rstrip(")") or said.rpartition("(")[2].rstrip(")")
        return f"too many arguments: {words}", "Leave them out; what holds spaces stands in quotes. "
    first = said.splitlines()[0] if said else "this command line cannot be read"
    return first.rstrip("."), ""


def _words(param: Any) -> str:
    """Return the words of which an argument is one, in a sentence; empty when it may be another."""
    *others, last = str(param.metavar or "").split("|")
    return f"{', '.join(others)} or {last}" if others and all(word.islower() for word in (*others, last)) else ""


def _name(param: Any) -> str:
    """Return what a person calls an option or an argument."""
    if param.param_type_name == "argument":
        return str(param.metavar or param.name).strip("[]").upper()
    return max(param.opts, key=len)
