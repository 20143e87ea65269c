"""The rehearsal: which turn of the script answers a request.

Pure, but for the evaluator, which computes its patterns and templates; what was consumed is handed in and handed back.

Which turn it is, is read from the conversation itself: the replies since the last prompt of a person. So a resumed, forked or
repeated conversation goes on where it was. Only faults (errors, stalls, cuts) leave no trace in a conversation; those are
counted in the request log.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, cast

from kapelle.adapters.gateway.asking import Asked
from kapelle.adapters.gateway.reading import CHARACTERS_PER_TOKEN
from kapelle.adapters.gateway.rehearsal_file import Rehearsal, Rule, Turn, dumps
from kapelle.adapters.gateway.replies import Reply, ToolUse
from kapelle.core.budget import Usage
from kapelle.core.errors import TemplateFailed
from kapelle.core.evaluating import Evaluator
from kapelle.core.frozen import frozen


@frozen
class Caller:
    """Who asks."""

    run: str
    task: str
    attempt: int
    round: int | None
    cwd: str


@frozen
class Fault:
    """Something that happens in place of a reply."""

    turn: Turn
    key: str
    """Under which it is counted."""


@frozen
class Answer:
    """A reply of the model."""

    reply: Reply
    turn: Turn


@frozen
class Rehearsing:
    """A rehearsal, and what computes for it."""

    rehearsal: Rehearsal
    evaluator: Evaluator

    def answer(self, asked: Asked, caller: Caller, consumed: Mapping[str, int], message_id: str) -> Answer | Fault:
        """Return what the script says to a request.

        *consumed* says how often each fault happened already; *message_id* names the reply.

        Raises:
            PatternFailed: a pattern of the script does not come to an end.
        """
        if asked.on_the_side:
            # A question of the program's own: it has no turn in the script.
            return self._reply(Turn(say="Rehearsal"), caller, asked, message_id)
        round_ = _round(caller, asked)
        for index, rule in enumerate(self.rehearsal.rules):
            if self._fits(rule, caller, round_, asked.prompt):
                return self._turn(rule, index, caller, asked, consumed, message_id)
        return self._reply(self.rehearsal.otherwise, caller, asked, message_id)

    def _fits(self, rule: Rule, caller: Caller, round_: int, prompt: str) -> bool:
        when = rule.when
        if when.task is not None and when.task != caller.task and not fnmatchcase(caller.task, when.task):
            return False
        if when.attempt is not None and when.attempt != caller.attempt:
            return False
        if when.round is not None and when.round != round_:
            return False
        return when.prompt is None or self.evaluator.finds(when.prompt, prompt)

    def _turn(
        self, rule: Rule, rule_index: int, caller: Caller, asked: Asked, consumed: Mapping[str, int], message_id: str
    ) -> Answer | Fault:
        replies = 0
        for index, turn in enumerate(rule.turns):
            if turn.is_reply:
                if replies == asked.replies:
                    return self._reply(turn, caller, asked, message_id)
                replies += 1
                continue
            whose = "" if turn.shared else f"{caller.task}/{caller.attempt}"
            key = f"{caller.run}/{whose}/{rule_index}/{index}"
            # A fault comes up when every reply before it was given, and no reply after it.
            if replies == asked.replies and consumed.get(key, 0) < turn.times:
                return Fault(turn=turn, key=key)
        text = f"(rehearsal: rule {rule_index + 1} has no turn left for reply {asked.replies + 1})"
        return self._reply(Turn(say=text), caller, asked, message_id)

    def _reply(self, turn: Turn, caller: Caller, asked: Asked, message_id: str) -> Answer:
        names = {
            "cwd": caller.cwd,
            "task": caller.task,
            "attempt": caller.attempt,
            "run": caller.run,
            "round": _round(caller, asked),
            "prompt": asked.prompt,
        }
        text = self._fill(turn.say or "", names)
        tools = [
            ToolUse(name=name, arguments=dumps(self._fill_all(arguments, names)))
            for call in turn.tools
            for name, arguments in call.items()
        ]
        if turn.usage is not None:
            usage = Usage(
                input_tokens=turn.usage.input_tokens,
                output_tokens=turn.usage.output_tokens,
                cache_read_tokens=turn.usage.cache_read_tokens,
                cache_write_tokens=turn.usage.cache_write_tokens,
            )
        else:
            said = len(text) + sum(len(tool.arguments) for tool in tools)
            usage = Usage(input_tokens=asked.characters // CHARACTERS_PER_TOKEN, output_tokens=said // CHARACTERS_PER_TOKEN + 1)
        model = asked.model or "rehearsal"
        reply = Reply(message_id=message_id, model=model, text=text, tools=tools, usage=usage, refused=turn.refuse)
        return Answer(reply=reply, turn=turn)

    def _fill(self, text: str, names: Mapping[str, Any]) -> str:
        if "{" not in text:
            return text
        try:
            return self.evaluator.fill(text, names)
        except TemplateFailed as error:
            # Its author's mistake, and told where it shows.
            return f"(rehearsal: {error})"

    def _fill_all(self, value: Any, names: Mapping[str, Any]) -> Any:
        if isinstance(value, str):
            return self._fill(value, names)
        if isinstance(value, dict):
            return {key: self._fill_all(inner, names) for key, inner in cast("dict[str, Any]", value).items()}
        if isinstance(value, list):
            return [self._fill_all(inner, names) for inner in cast("list[Any]", value)]
        return value


def _round(caller: Caller, asked: Asked) -> int:
    return caller.round if caller.round is not None else max(asked.prompts - 1, 0)


def fault_message(turn: Turn, now: datetime) -> str:
    """Return the text of an error, as the API words it."""
    if turn.message is not None:
        return turn.message
    resets_at = turn.resets_at(now)
    if resets_at is not None:
        return f"You've hit your usage limit. It resets at {resets_at.astimezone(UTC):%Y-%m-%dT%H:%MZ}."
    texts = {401: "invalid x-api-key", 429: "rate limit reached (rehearsed)", 529: "Overloaded"}
    return texts.get(turn.error or 0, f"rehearsed error {turn.error} at {now:%H:%M:%S}")
