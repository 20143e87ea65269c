"""Why a turn ended without an answer: the CLI's results, sorted by what has to be done about them.

``subtype`` is "success" even for errors of the API, and the exit code says nothing: ``is_error``, ``terminal_reason`` and
``api_error_status`` decide, and where they are silent the text does.
"""

from kapelle.adapters.drivers.claude.messages import Result
from kapelle.core.conversation import Trouble
from kapelle.core.trouble import trouble_of_status, trouble_of_text

BY_SUBTYPE = {
    "error_max_turns": Trouble.MAX_TURNS,
    "error_max_budget_usd": Trouble.BUDGET,
    # The model was asked again and again for a result that fits its schema: its own doing, not the API's.
    "error_max_structured_output_retries": Trouble.MAX_TURNS,
}


def trouble_of(result: Result) -> Trouble | None:
    """Return what went wrong in the turn that *result* ends, or None when nothing did."""
    if result.subtype in BY_SUBTYPE:
        return BY_SUBTYPE[result.subtype]
    text = f"{result.result or ''} {' '.join(result.errors or ())}"
    if result.subtype == "error_during_execution" and result.api_error_status is None and not result.is_error:
        return Trouble.INTERRUPTED
    if "refusal" in {result.terminal_reason, result.stop_reason}:
        return Trouble.REFUSED
    if not result.is_error:
        return None
    if result.terminal_reason == "prompt_too_long":
        return Trouble.CONTEXT_OVERFLOW
    if (found := trouble_of_text(text)) is not None:
        return found
    if result.api_error_status is not None:
        return trouble_of_status(result.api_error_status)
    return Trouble.INTERRUPTED if result.subtype == "error_during_execution" else Trouble.UNKNOWN
