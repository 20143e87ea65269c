"""Rehearsal files: a script of what the model says, as people write it."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from kapelle.core.durations import PATTERN, parse_duration
from kapelle.core.errors import FileInvalid, TemplateFailed
from kapelle.core.patterns import pattern_problem
from kapelle.core.references import references
from kapelle.documents import Document


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str):
        return parse_duration(value)
    raise ValueError(f"{value!r} is no duration; write it with its unit, for example 200ms or 30s")


Duration = Annotated[timedelta, BeforeValidator(_duration), WithJsonSchema({"type": "string", "pattern": PATTERN})]


class Model(BaseModel):
    """What is not known is a mistake, not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class When(Model):
    """Which requests a rule answers; everything that is given must fit."""

    task: str | None = Field(default=None, description="The task's name, or a glob.")
    attempt: int | None = None
    round: int | None = Field(default=None, description="0 for the first prompt of an attempt.")
    prompt: str | None = Field(default=None, description="Regular expression, searched in the last user prompt.")

    @field_validator("prompt")
    @classmethod
    def _is_expression(cls, value: str | None) -> str | None:
        if value is not None:
            problem = pattern_problem(value)
            if problem:
                raise ValueError(f"{problem}; see the re module of Python")
        return value


class UsageGiven(Model):
    """Tokens that a reply is said to have used."""

    input_tokens: int = Field(default=0, ge=0)
    output_tokens: int = Field(default=0, ge=0)
    cache_read_tokens: int = Field(default=0, ge=0)
    cache_write_tokens: int = Field(default=0, ge=0)


class Turn(Model):
    """One reply of the model, or something that happens in place of one."""

    say: str | None = None
    tools: list[dict[str, dict[str, Any]]] = Field(default=[], description="Tool calls: {NAME: {arguments}}.")
    usage: UsageGiven | None = None
    delay: Duration | None = Field(default=None, description="Before the reply begins.")
    drip: Duration | None = Field(default=None, description="Between the pieces of the reply.")
    error: int | None = Field(default=None, ge=400, le=599, description="An HTTP status in place of a reply.")
    message: str | None = Field(default=None, description="The text of the error.")
    retry_after: float | None = Field(default=None, ge=0, description="Seconds, with error: 429.")
    usage_limit: datetime | Duration | None = Field(
        default=None, description="When the account's limit ends, or in how long, with error: 429."
    )
    error_type: str | None = Field(default=None, description="The API's word for the error, in place of the usual one.")
    headers: dict[str, str] = Field(default={}, description="Headers of the error, such as x-should-retry.")
    body: str | dict[str, Any] | None = Field(
        default=None, description="The whole body of the error, in place of the API's shape."
    )
    refuse: bool = Field(
        default=False, description="The model refuses to go on, with what it said so far: no error, but no answer."
    )
    shared: bool = Field(default=False, description="times counts over all tasks of the run together.")
    stall: Duration | None = Field(default=None, description="Nothing is said for so long; then the connection ends.")
    cut: bool = Field(default=False, description="The reply breaks off in its middle.")
    times: int = Field(default=1, ge=1, description="How often error, stall or cut happens, per task and attempt.")

    @property
    def is_reply(self) -> bool:
        """Whether this is something the model says, and not a fault."""
        return self.error is None and self.stall is None and not self.cut

    def resets_at(self, now: datetime) -> datetime | None:
        """Return when the account's limit ends, for an error that happens at *now*."""
        if isinstance(self.usage_limit, timedelta):
            return now + self.usage_limit
        return self.usage_limit

    @model_validator(mode="after")
    def _one_thing(self) -> "Turn":
        if self.error is not None and (self.say or self.tools):
            raise ValueError("a turn is either an error or a reply; make two turns of it")
        if not self.is_reply and (self.say is not None or self.tools):
            raise ValueError("a turn is either stall or cut, or a reply; make two turns of it")
        if self.is_reply and self.say is None and not self.tools and not self.refuse:
            raise ValueError("the turn does nothing; give it say, tools, refuse, error, stall or cut")
        if (self.retry_after is not None or self.usage_limit is not None) and self.error is None:
            raise ValueError("retry_after and usage_limit belong to an error; add error: 429")
        if (self.error_type is not None or self.headers or self.body is not None) and self.error is None:
            raise ValueError("error_type, headers and body belong to an error; add error with its status")
        if self.shared and self.is_reply:
            raise ValueError("shared belongs to error, stall or cut: replies are counted by their conversation")
        if self.refuse and (not self.is_reply or self.tools):
            raise ValueError("refuse belongs to a reply without tools")
        for call in self.tools:
            if len(call) != 1:
                raise ValueError("a tool call has one name; write - {Write: {file_path: ...}}")
        texts = [self.say or "", *(_strings(self.tools))]
        for text in texts:
            try:
                references(text)
            except TemplateFailed as error:
                raise ValueError(f"{text[:60]!r} is no template: {error}; a literal {{{{ is {{{{ '{{{{' }}}}") from error
        return self


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for inner in cast("dict[str, object]", value).values() for text in _strings(inner)]
    if isinstance(value, list):
        return [text for inner in cast("list[object]", value) for text in _strings(inner)]
    return []


class Rule(Model):
    """What answers one prompt."""

    when: When = When()
    turns: list[Turn] = Field(min_length=1)


class Rehearsal(Model):
    """A rehearsal file."""

    rules: list[Rule] = Field(default=[], description="Rules with the very same when are one: their turns follow each other.")
    otherwise: Turn = Turn(say="Nothing to do here.")

    @field_validator("otherwise")
    @classmethod
    def _is_reply(cls, value: Turn) -> Turn:
        if not value.is_reply:
            raise ValueError("a fault has a rule of its own; a rule without when fits everything")
        return value

    @field_validator("rules")
    @classmethod
    def _joined(cls, value: list[Rule]) -> list[Rule]:
        joined: dict[tuple[object, ...], Rule] = {}
        for rule in value:
            when = rule.when
            known = joined.setdefault(
                (when.task, when.attempt, when.round, when.prompt), Rule.model_construct(when=when, turns=[])
            )
            known.turns.extend(rule.turns)
        return list(joined.values())


RECORDED = "# Recorded by Kapelle from"
"""How a recording begins."""


REPLY = '- {"when": '
"""How the line of a reply begins in one."""


def without_cut_end(text: str) -> str:
    """Return *text*, if it is a recording, without a reply at its end that a crash has cut."""
    before, _, last = text.rpartition("\n")
    if not text.startswith(RECORDED) or not last.startswith(REPLY[: len(last)]) or not last:
        return text
    try:
        json.loads(last.removeprefix("- "))
    except ValueError:
        return f"{before}\n"
    return text


def load_rehearsal(path: Path) -> Rehearsal:
    """Read the rehearsal file at *path*.

    Raises:
        FileMissing: it cannot be read.
        FileInvalid: it has mistakes; all of them are told, each with its place.
    """
    document = Document.read(path, whole=without_cut_end)
    rehearsal, mistakes = document.fit(Rehearsal, any_text=True)
    if rehearsal is None or mistakes:
        raise FileInvalid(mistakes)
    return rehearsal


def rehearsal_schema() -> dict[str, Any]:
    """Return the JSON Schema of rehearsal files, for editors."""
    schema = Rehearsal.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Kapelle rehearsal file"}


def dumps(value: Any) -> str:
    """Return *value* as JSON text."""
    return json.dumps(value, ensure_ascii=False)
