"""`kapelle init`: look what a repository is, plan what to write, write all of it or nothing."""

import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

from kapelle.apps.prompts import PROMPTS
from kapelle.apps.settings import AGENTS_FILE, FOLDER, PROJECT_FILE
from kapelle.core.errors import KapelleError, UsageError
from kapelle.core.frozen import frozen, replace


@frozen
class Kind:
    """What a repository is."""

    name: str
    description: str
    technologies: tuple[str, ...]
    tools: tuple[str, ...]
    """What agents may run without asking."""
    lint: str | None = None
    test: str | None = None
    setup: str | None = None


@frozen
class Plan:
    """What is to be written."""

    root: Path
    kind: Kind
    name: str
    test: str | None

    def having(self, *, name: str, test: str | None) -> "Plan":
        """Return the same with another name and test command."""
        return replace(self, name=name, test=test)

    def files(self) -> dict[Path, str]:
        """Return the files to write and what is to stand in them."""
        files = {self.root / PROJECT_FILE: _project(self), self.root / AGENTS_FILE: _agents(self)}
        for name, text in PROMPTS.items():
            files[self.root / FOLDER / "prompts" / f"{name}.md"] = text
        return files

    def existing(self) -> list[Path]:
        """Return the files that are there already."""
        return [path for path in self.files() if path.exists()]


def plan_for(root: Path) -> Plan:
    """Return what to write for the repository at *root*, by what is in it."""
    kind = _look(root)
    return Plan(root=root, kind=kind, name=root.name or "project", test=kind.test)


def _look(root: Path) -> Kind:
    for name, look in _LOOKS:
        if (root / name).exists():
            return look if isinstance(look, Kind) else look(root)
    if any(root.glob("*.py")) or any(root.glob("*/*.py")):
        return _python(root)
    return Kind(name="other", description="a repository of no kind that init knows", technologies=(), tools=("Bash(git *)",))


def _python(root: Path) -> Kind:
    text = (root / "pyproject.toml").read_text(encoding="utf-8") if (root / "pyproject.toml").exists() else ""
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        text = ""
    uses_pytest = "pytest" in text or (root / "pytest.ini").exists() or (root / "conftest.py").exists()
    return Kind(
        name="python",
        description="a Python project",
        technologies=("python",),
        tools=("Bash(python3 *)", "Bash(pytest *)", "Bash(ruff *)", "Bash(git *)"),
        lint="ruff check ." if "ruff" in text else None,
        test="python3 -m pytest -q" if uses_pytest else "python3 -m unittest -q",
    )


def _node(root: Path) -> Kind:
    try:
        scripts = json.loads((root / "package.json").read_text(encoding="utf-8")).get("scripts", {})
    except (ValueError, AttributeError):
        scripts = {}
    manager = "pnpm" if (root / "pnpm-lock.yaml").exists() else "yarn" if (root / "yarn.lock").exists() else "npm"
    install = {"npm": "npm ci", "pnpm": "pnpm install --frozen-lockfile", "yarn": "yarn install --frozen-lockfile"}[manager]
    locked = (root / "package-lock.json").exists() or manager != "npm"
    return Kind(
        name="node",
        description="a JavaScript or TypeScript project",
        technologies=("typescript",) if (root / "tsconfig.json").exists() else ("javascript",),
        tools=(f"Bash({manager} *)", "Bash(npx *)", "Bash(node *)", "Bash(git *)"),
        lint=f"{manager} run lint" if "lint" in scripts else None,
        test=f"{manager} test" if "test" in scripts else None,
        setup=install if locked else "npm install",
    )


_RUST = Kind(
    name="rust",
    description="a Rust project",
    technologies=("rust",),
    tools=("Bash(cargo *)", "Bash(git *)"),
    lint="cargo clippy --quiet",
    test="cargo test --quiet",
)
_GO = Kind(
    name="go",
    description="a Go project",
    technologies=("go",),
    tools=("Bash(go *)", "Bash(git *)"),
    lint="go vet ./...",
    test="go test ./...",
)


def _make(root: Path) -> Kind:
    has_test = any(line.startswith("test:") for line in (root / "Makefile").read_text(encoding="utf-8").splitlines())
    return Kind(
        name="make",
        description="a project built by make",
        technologies=(),
        tools=("Bash(make *)", "Bash(git *)"),
        test="make test" if has_test else None,
    )


# The first of these files that is there says what a repository is.
_LOOKS: tuple[tuple[str, Kind | Callable[[Path], Kind]], ...] = (
    ("pyproject.toml", _python),
    ("setup.py", _python),
    ("package.json", _node),
    ("Cargo.toml", _RUST),
    ("go.mod", _GO),
    ("Makefile", _make),
)


def _text(value: str) -> str:
    # A JSON string is a YAML string, with everything quoted that needs it.
    return json.dumps(value, ensure_ascii=False)


def _list(values: tuple[str, ...]) -> str:
    return "[" + ", ".join(_text(value) for value in values) + "]"


def _project(plan: Plan) -> str:
    return f"""# What Kapelle needs to know about this project. `kapelle config --explain` shows all settings.
name: {_text(plan.name)}
description: {_text(plan.kind.description)}
# target: main          # branch that changes go to; default: the one that is checked out
# delivery: each        # when merged work goes to the target: each, end or never
# merge:
#   batch: 16           # changes that are gated together at most
#   wait: 0s            # how long a batch that is not full waits for more
#   protect: [...]      # files whose change waits for a person; the default: .kapelle/**, CI files, hooks
phases: []
limits:
  # agents: 4           # agents at once for one run
  # budget_usd: 20.0    # what one run may spend
  merge_returns: 3      # how often a change goes back to its agent from the merge queue
"""


AGENTS = (
    ("backend", ("backend", "api", "database")),
    ("frontend", ("frontend", "ui")),
    ("devops", ("devops", "ci", "deployment")),
    ("qa", ("qa", "testing")),
    ("docs", ("docs",)),
    ("project-manager", ("planning", "review")),
)


HINTS = (
    "# What set-up commands, checks and all agents work in; an agent may have any of it for itself.",
    "# sandbox: auto          # bubblewrap where it works; `kapelle doctor` tells what each isolates and holds here",
    "# limits: {memory: 4GB, cpus: 2, pids: 500, disk: 10GB}",
    "# network: {allow: [pypi.org, github.com]}   # and the model; or open (the default), model-only, none",
    '# rules: {deny: ["Bash(terraform apply *)"], ask: ["Bash(npm publish *)"]}   # who is asked: kapelle inbox',
)


def _agents(plan: Plan) -> str:
    kind = plan.kind
    lines = ["# The agents, the gates and the workspaces of this project. `kapelle validate` checks this file.", "agents:"]
    for name, capabilities in AGENTS:
        tools = (
            ("Read", "Glob", "Grep") if name == "project-manager" else ("Read", "Write", "Edit", "Glob", "Grep", *kind.tools)
        )
        lines += [
            f"  {name}:",
            "    program: claude",
            f"    prompt: prompts/{name}.md",
            f"    technologies: {_list(kind.technologies)}",
            f"    capabilities: {_list(capabilities)}",
            f"    tools: {{allow: {_list(tools)}}}",
            "    permission_mode: acceptEdits",
        ]
    lines += ["    # secrets: {NPM_TOKEN: env:NPM_TOKEN}   # what it alone gets: by reference, never the value itself"]
    lines += ["  script: {program: command}   # the prompt is the command line", "", *HINTS, ""]
    checks = [("lint", kind.lint, "5m", False), ("test", plan.test, "15m", True)]
    given = [entry for entry in checks if entry[1]]
    if given:
        lines += ["gates:", "  default:", "    checks:"]
        for name, command, timeout, required in given:
            run, must = _text(command or ""), str(required).lower()
            lines.append(f"      - {{name: {name}, run: {run}, timeout: {timeout}, required: {must}}}")
        lines += ["    rounds: 2   # how often a failed check goes back to the agent", ""]
    lines.append("assignment_rules:   # kind of task -> agents that may do it")
    lines += [f"  {capability}: [{name}]" for name, capabilities in AGENTS for capability in capabilities]
    lines += ["", "workspace:"]
    lines.append(
        f"  copy: {_list(('.env',)) if (plan.root / '.env').exists() else '[]'}   # files that git ignores and agents need"
    )
    lines.append(f"  setup: {_list((kind.setup,)) if kind.setup else '[]'}   # run once in each new workspace")
    lines.append("  ports: 0    # TCP ports for each workspace: PORT, PORT_1, ...")
    return "\n".join(lines) + "\n"


def write(plan: Plan, *, verify: Callable[[], None]) -> list[Path]:
    """Write the files of *plan*, check them with *verify*, and undo everything when anything fails.

    Raises:
        UsageError: a file cannot be written.
        KapelleError: what *verify* raises.
    """
    before = {path: path.read_bytes() if path.exists() else None for path in plan.files()}
    had_folder = (plan.root / FOLDER).exists()
    try:
        for path, text in plan.files().items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        verify()
    except (OSError, KapelleError) as error:
        _undo(plan, before, had_folder=had_folder)
        if isinstance(error, OSError):
            raise UsageError(
                f"{error.filename} cannot be written ({error.strerror}); everything was undone",
                remedy="Move it away or mend its permissions.",
            ) from error
        raise
    return list(before)


def _undo(plan: Plan, before: dict[Path, bytes | None], *, had_folder: bool) -> None:
    if not had_folder:
        shutil.rmtree(plan.root / FOLDER, ignore_errors=True)
        return
    for path, content in before.items():
        if content is None and path.is_file():
            path.unlink()
        elif content is not None:
            path.write_bytes(content)
