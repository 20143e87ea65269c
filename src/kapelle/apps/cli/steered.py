"""What people did about one agent or one task, in words."""

from kapelle.core.event import Event
from kapelle.core.steering_events import (
    AgentFrozen,
    AgentNotFrozen,
    AgentStopAsked,
    AgentThawed,
    ConversationHandedBack,
    ConversationTakenOver,
    PromptCarriedOver,
    PromptQueued,
    PromptUnheard,
    TaskPaused,
    TaskResumed,
    TerminalFailed,
)


def steered(event: Event) -> str | None:
    """Return what *event* tells in one line; None when it is about something else."""
    match event:
        case TaskPaused(principal=principal):
            return f"paused by {principal}"
        case TaskResumed(principal=principal):
            return f"resumed by {principal}"
        case AgentFrozen(principal=principal, agent_id=agent_id):
            return f"its agent {agent_id} was frozen by {principal}"
        case AgentThawed(principal=principal, agent_id=agent_id):
            return f"its agent {agent_id} was thawed by {principal}"
        case AgentNotFrozen(agent_id=agent_id, reason=reason):
            return f"its agent {agent_id} cannot be frozen: {reason.splitlines()[0] if reason else 'nobody knows why'}"
        case AgentStopAsked(principal=principal, agent_id=agent_id, at_once=at_once):
            return f"its agent {agent_id} was stopped by {principal}{', at once' if at_once else ''}"
        case PromptQueued(principal=principal, length=length):
            return f"{principal} has something to say to its agent ({length} characters)"
        case PromptCarriedOver(principal=principal, length=length):
            return f"what {principal} had to say waits for its next agent ({length} characters)"
        case PromptUnheard(principal=principal, length=length):
            return f"nobody heard what {principal} had to say ({length} characters): it ended before"
        case TerminalFailed(reason=reason):
            return f"its terminal could not be opened: {reason.splitlines()[0]}"
        case ConversationTakenOver(principal=principal):
            return f"taken over by {principal}"
        case ConversationHandedBack(reason=reason) if reason:
            return f"could not be taken over: {reason.splitlines()[0]}"
        case ConversationHandedBack(principal=principal):
            return f"handed back by {principal}"
        case _:
            return None
