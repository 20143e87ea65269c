"""What an agent needs of a host and of the limits, what there is left of both, and which of several that fit is best.

Pure, like ``core.dispatch``, which asks here for one task after the other. A ``Tally`` counts while a plan is made: what was
planned takes its room from what comes after, so all placements of a plan fit together, in any order.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from enum import StrEnum
from typing import NamedTuple

from kapelle.core.frozen import frozen
from kapelle.core.plain_text import counted
from kapelle.core.sizes import format_size
from kapelle.core.task import Wait


class Of(StrEnum):
    """What agents have in common that are counted together."""

    RUN = "run"
    PROJECT = "project"
    CONFIG = "config"
    MODEL = "model"
    ACCOUNT = "account"


class Group(NamedTuple):
    """Agents that are counted together. A tuple, since it is the key of every count and hashed all the time."""

    of: Of
    name: str
    within: str = ""
    """The project or account, for what is called so only there; of an account, its id."""


class Strategy(StrEnum):
    """Which of several agent configs and hosts that fit is taken."""

    LEAST_LOADED = "least_loaded"
    ROUND_ROBIN = "round_robin"
    BEST_FIT = "best_fit"


Limits = tuple[tuple[Group, int], ...]
"""How many agents of a group may be live at once."""


@frozen
class Choice:
    """An agent config that a task may be given to."""

    config: str
    groups: tuple[Group, ...] = ()
    """Where its agents are counted, beside those of the task: its own group first."""
    account: Group | None = None
    """The account whose model calls it makes, which is one of its groups; None where it makes none."""
    limits: Limits = ()
    memory: int = 0
    """Bytes that it asks for: they are promised to it as long as it lives."""
    least_memory: int = 0
    """Bytes that must be free by measure, though none are promised."""
    cpus: float = 0.0
    """Processors that it asks for."""
    spare: int = 0
    """How many capabilities it has that the task does not require."""


@frozen
class HostRoom:
    """What a host has, and what of it is promised to live agents."""

    name: str
    slots: int
    """Agents that may be live at once."""
    live: int = 0
    memory: int | None = None
    """Bytes that may be promised: all but what is kept free. None: not known, and not counted."""
    memory_promised: int = 0
    memory_free: int | None = None
    """Bytes that are free by measure, less what is kept free and what agents that have just begun were promised."""
    cpus: float | None = None
    cpus_promised: float = 0.0


@frozen
class Refusal:
    """Why a task gets no agent now."""

    wait: Wait
    rule: str
    """Which rule says so, in a word."""
    detail: str
    """The same in words for people, with numbers."""


@frozen
class Considered:
    """An agent config on a host that was looked at for a task."""

    config: str
    host: str
    score: float | None = None
    """The lowest is taken; None when it was refused."""
    refusal: str = ""


_WORDS = {
    Of.RUN: "of this run",
    Of.PROJECT: "of the project {}",
    Of.CONFIG: "of the kind {}",
    Of.MODEL: "of the model {}",
    Of.ACCOUNT: "of the account {}",
}


def at_limit(group: Group, most: int) -> Refusal:
    """Return the refusal for a group that is at its limit."""
    whose, are = _WORDS[group.of].format(group.name), "is" if most == 1 else "are"
    return Refusal(wait=Wait.CAPACITY, rule=group.of.value, detail=f"{counted(most, 'agent')} {whose} {are} live, its limit")


@frozen
class Begun:
    """How the counting begins: what is live, by group and host, and what may be started."""

    hosts: tuple[HostRoom, ...]
    live_by: Mapping[Group, int] = field(default_factory=dict[Group, int])
    given: Mapping[Group, int] = field(default_factory=dict[Group, int])
    """How many agents of a config were given out, for ``round_robin``."""
    starts: Mapping[Group, int] = field(default_factory=dict[Group, int])
    """Agents that may be started now for one account, where that is bounded."""
    why: Mapping[Group, str] = field(default_factory=dict[Group, str])
    """Why it is."""


class Tally:
    """What there is left, while a plan is made."""

    def __init__(self, begun: Begun) -> None:
        self._begun = begun
        self.hosts = begun.hosts
        self.live_by: Counter[Group] = Counter(begun.live_by)
        self._given: Counter[Group] = Counter(begun.given)
        self._live = {host.name: host.live for host in begun.hosts}
        self._memory: Counter[str] = Counter()
        """What this plan promises, by host."""
        self._taken: Counter[str] = Counter()
        """What of the memory that is free this plan takes, by host."""
        self._cpus: dict[str, float] = {}
        self._starts: Counter[Group] = Counter()

    # --- What stands in the way ---

    @property
    def free(self) -> int:
        """How many slots are left, on all hosts."""
        return sum(max(host.slots - self._live[host.name], 0) for host in self.hosts)

    def in_the_way(self, limits: Limits) -> Iterator[Refusal]:
        """Yield what keeps every agent from a task with these *limits*, whatever its config and host."""
        for group, most in limits:
            if self.live_by[group] >= most:
                yield at_limit(group, most)

    def against(self, choice: Choice, host: HostRoom) -> Iterator[Refusal]:
        """Yield what keeps an agent of *choice* from *host*."""
        if self._live[host.name] >= host.slots:
            yield _short("slots", f"all {host.slots} slots of {host.name} are taken")
        for group, most in choice.limits:
            if self.live_by[group] >= most:
                yield at_limit(group, most)
        account = choice.account
        bound = self._begun.starts.get(account) if account is not None else None
        if account is not None and bound is not None and self._starts[account] >= bound:
            yield Refusal(wait=Wait.LIMIT, rule="starts", detail=self._begun.why.get(account, ""))
        yield from self._memory_short(choice, host)
        if choice.cpus and host.cpus is not None:
            promised = host.cpus_promised + self._cpus.get(host.name, 0.0)
            if promised + choice.cpus > host.cpus + 1e-9:
                has = f"{host.name} has {host.cpus:g} processors, {promised:g} of them promised to agents"
                yield _short("cpus", f"{has}; {choice.config} asks for {choice.cpus:g}")

    def _memory_short(self, choice: Choice, host: HostRoom) -> Iterator[Refusal]:
        needed = max(choice.memory, choice.least_memory)
        asks = f"{choice.config} {'asks for' if choice.memory >= needed else 'needs'} {format_size(needed)}"
        planned = self._memory[host.name]
        if choice.memory and host.memory is not None and host.memory_promised + planned + choice.memory > host.memory:
            promised = format_size(host.memory_promised + planned)
            has = f"{host.name} has {format_size(host.memory)} of memory for agents, {promised} of it promised"
            yield _short("memory", f"{has}; {asks}")
        elif host.memory_free is not None and self._taken[host.name] + needed > host.memory_free:
            left = format_size(max(host.memory_free - self._taken[host.name], 0))
            yield _short("memory", f"{left} of the memory of {host.name} is left for agents by measure; {asks}")

    # --- Which one ---

    def consider(self, choices: Sequence[Choice], at: str | None, strategy: Strategy) -> list[tuple[Considered, Choice]]:
        """Look at every config on every host (only the host *at*, if that is given), the best first, the refused last."""
        found: list[tuple[float, int, Considered, Choice]] = []
        for choice in choices:
            for host in self.hosts:
                if at is not None and host.name != at:
                    continue
                refusal = next(self.against(choice, host), None)
                score = None if refusal is not None else self._score(choice, host, strategy)
                said = "" if refusal is None else refusal.detail
                looked = Considered(config=choice.config, host=host.name, score=score, refusal=said)
                found.append((float("inf") if score is None else score, len(found), looked, choice))
        return [(looked, choice) for _, _, looked, choice in sorted(found, key=lambda entry: entry[:2])]

    def _score(self, choice: Choice, host: HostRoom, strategy: Strategy) -> float:
        """Return how good it is: the least is best. Of those that are alike, who is written first is taken."""
        its = choice.groups[0] if choice.groups else Group(Of.CONFIG, choice.config)
        filled = self._live[host.name] / host.slots
        match strategy:
            case Strategy.ROUND_ROBIN:
                return float(self._given[its])
            case Strategy.BEST_FIT:
                # Whoever can do more than is asked is kept for those who ask for it; a host that is nearly full is filled.
                return choice.spare + 1 - filled
            case Strategy.LEAST_LOADED:
                most = dict(choice.limits).get(its, host.slots)
                return self.live_by[its] / most + filled

    # --- What was planned ---

    def take(self, choice: Choice, host: str, groups: Sequence[Group]) -> None:
        """Count an agent of *choice* on *host* for a task of *groups*."""
        self._live[host] += 1
        self._memory[host] += choice.memory
        self._taken[host] += max(choice.memory, choice.least_memory)
        self._cpus[host] = self._cpus.get(host, 0.0) + choice.cpus
        for group in (*groups, *choice.groups):
            self.live_by[group] += 1
            self._starts[group] += 1
        if choice.groups:
            self._given[choice.groups[0]] += 1


def _short(rule: str, detail: str) -> Refusal:
    return Refusal(wait=Wait.CAPACITY, rule=rule, detail=detail)
