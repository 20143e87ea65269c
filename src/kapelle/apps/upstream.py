"""Which model a run talks to: decided once, when it is submitted, and kept with it. Never a silent fallback."""

import json
import os
import shlex
import shutil
from pathlib import Path

from kapelle.apps import compose
from kapelle.apps.settings import Configuration
from kapelle.core.errors import CredentialsMissing, ProgramMissing, UsageError
from kapelle.core.gateway import Upstream


def choose_upstream(found: Configuration, *, rehearse: Path | None, record: Path | None, needs_model: bool = False) -> Upstream:
    """Return where the model calls of a run go.

    Raises:
        CredentialsMissing: the run needs a model and there is neither a key, nor a login, nor a rehearsal.
        UsageError: what the model says is to be recorded, and the gateway is off.
    """
    settings = found.settings
    if rehearse is not None:
        return Upstream(rehearsal=str(rehearse.resolve()))
    recorded = str(record.resolve()) if record is not None else None
    kind, _, name = settings.credential.partition(":")
    has_key = kind == "env" and bool(found.environment.get(name))
    if not settings.gateway and record is not None:
        raise UsageError("without the gateway nothing can be recorded", remedy="Leave out --record, or --no-gateway.")
    if not settings.gateway:
        if needs_model and not has_key and not logged_in(found):
            raise _missing(settings.credential)
        return Upstream(base_url=settings.base_url, bypass=True)
    if has_key:
        return Upstream(base_url=settings.base_url, credential=settings.credential, record=recorded)
    if needs_model and not logged_in(found):
        raise _missing(settings.credential)
    return Upstream(base_url=settings.base_url, record=recorded)


def _missing(reference: str) -> CredentialsMissing:
    kind, _, name = reference.partition(":")
    told = name if kind == "env" else reference
    remedy = f"Set {told}, or run `{claude_command()}` once and log in; or try without a model: `kapelle run --rehearse FILE`."
    return CredentialsMissing(
        f"there is no way to reach a model: {reference} is not set and claude is not logged in", remedy=remedy
    )


def claude_command() -> str:
    """Return what a person writes to start claude: its path where it is on nobody's PATH, as the one that a package brings."""
    try:
        path = compose.claude_facts()[0]
    except ProgramMissing:
        return "claude"
    return "claude" if shutil.which("claude") else shlex.quote(path)


def logged_in(found: Configuration) -> bool:
    """Say whether the operator's own claude is logged in (by subscription or with a token)."""
    if found.environment.get("CLAUDE_CODE_OAUTH_TOKEN"):
        return True
    folder = Path(found.environment.get("CLAUDE_CONFIG_DIR") or Path.home() / ".claude")
    if (folder / ".credentials.json").is_file():
        return True
    # On macOS the login lies in the keychain; the account is named in the CLI's own file.
    for path in (folder / ".claude.json", Path.home() / ".claude.json"):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and "oauthAccount" in content:
            return os.name == "posix"
    return False
