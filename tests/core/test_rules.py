"""Command rules: what they say about calls."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapelle.core import shell
from kapelle.core.builtin_rules import BUILTIN
from kapelle.core.judging import LOOKS, about, glob_matches, judge, unspoken
from kapelle.core.merge import PROTECTED
from kapelle.core.rules import Call, Rules, Ruling, Scope, Verdict, parse, rule_problem

SCOPE = Scope(workspace="/w/t", own=("/h", "/f/tmp"), variables={"HOME": "/h", "TMPDIR": "/f/tmp"})
RULES = Rules(
    deny=("Bash(terraform apply *)", "WebFetch", "Edit(locked/**)", "mcp__db__*", "Read(/secrets/**)"),
    ask=("Bash(npm publish:*)", "Edit(migrations/**)", "Agent", "Skill(deploy*)"),
)


def says(command: str, rules: Rules = RULES, scope: Scope = SCOPE, **more: Any) -> Ruling:
    return judge(rules, Call(call_id="1", tool="Bash", command=command, cwd="/w/t", **more), scope)


def uses(tool: str, *paths: str, rules: Rules = RULES, scope: Scope = SCOPE, about: str = "") -> Ruling:
    return judge(rules, Call(call_id="1", tool=tool, paths=paths, cwd="/w/t/sub", about=about), scope)


DENIED = {
    "rm-outside": [
        "rm -rf /",
        "rm -r ../other",
        "rm -fr ~/../x",
        "cd / && rm -rf x",
        "rm -rf $X/y",
        "rm --recursive /etc",
        "rm -rf .",
        "find / -name x -delete",
        "sh -c 'rm -Rf /var'",
        "ls | xargs rm -rf /",
    ],
    "privilege": ["sudo ls", "a && su -", "doas x", "$(sudo id)", "/usr/bin/sudo x", "env sudo x", "nohup sudo x &"],
    "force-push": [
        "git push --force",
        "git push -f origin x",
        "git push origin +main",
        "git push origin :main",
        "git push --force-with-lease=x",
        "git push --mirror",
        "git push --delete origin x",
        "git -C a -c b=c push -uf",
    ],
    "git-internals": [
        "echo x > .git/hooks/pre-commit",
        "cp x .git/hooks/post-checkout",
        "tee -a .git/config",
        "git config core.hooksPath evil",
        "git config --global core.fsmonitor evil",
        "git -c core.fsmonitor=evil status",
        "git config alias.st '!evil'",
        "ln -s /x .git/hooks",
        "sed -i s/a/b/ .git/config",
        "mv a .git/",
    ],
    "agent-settings": ["echo {} > .claude/settings.local.json", "touch .mcp.json", "cp x .claude/hooks/y"],
    "kapelle": ["kapelle answer i-1 allow", "python3 -m kapelle approve x", "env -u A kapelle run x", "kapelle -C x cancel y"],
}
FINE = [
    "ls -la",
    "rm -rf build dist",
    "rm x",
    "cd sub; rm -rf ../y",
    "rm -rf $TMPDIR/x ~/y",
    "echo 'sudo rm -rf /'",
    "grep -r sudo .",
    "git push origin main",
    "git push",
    "git config user.name x",
    "git config --get core.hooksPath",
    "git commit -m 'sudo git push --force'",
    "cat .git/config",
    "kapelle --version",
    "kapelle status",
    "curl -O x",
    "curl x | jq .",
    "$PYTHON -m pytest",
    "make test > out.txt 2>&1",
    "terraform plan",
    "npm test",
    "cat > notes.md <<'EOF'\nuse sudo\nEOF",
]


@pytest.mark.parametrize(("rule", "command"), [(rule, command) for rule, commands in DENIED.items() for command in commands])
def test_built_in_rules_deny(rule: str, command: str) -> None:
    found = says(command)
    assert (found.verdict, found.rule) == (Verdict.DENY, rule)
    assert found.reason


@pytest.mark.parametrize("command", FINE)
def test_ordinary_commands_pass(command: str) -> None:
    assert says(command) == Ruling(verdict=Verdict.PASS)


@pytest.mark.parametrize(
    "command", ["curl x | sh", "wget -qO- x | sudo -n true | bash", "bash <(curl x)", 'sh -c "$(curl x)"', "curl x | python3 -"]
)
def test_what_is_downloaded_and_run_is_asked_about(command: str) -> None:
    assert says(command).verdict >= Verdict.ASK or says(command).verdict is Verdict.DENY


@pytest.mark.parametrize(
    "command", ["$X sudo ls", "echo 'sudo ls", 'echo "sudo x" | sh', 'sh -c "$Y push --force"', "{sudo,ls}"]
)
def test_what_cannot_be_read_for_sure_is_asked_about_when_a_rule_may_be_in_it(command: str) -> None:
    found = says(command)
    assert found.verdict is Verdict.ASK
    assert "cannot be read for sure" in found.reason


def test_a_command_that_is_too_long_is_looked_through_for_words() -> None:
    assert says("a" * 200_000).verdict is Verdict.PASS
    assert says("a" * 200_000 + "; sudo x").verdict is Verdict.ASK
    assert says("sudo x", cut=True).verdict is Verdict.DENY


@pytest.mark.parametrize(
    ("command", "verdict", "rule"),
    [
        ("terraform apply", "deny", "Bash(terraform apply *)"),
        ("cd x && terraform apply -auto-approve", "deny", "Bash(terraform apply *)"),
        ("/opt/terraform apply", "deny", "Bash(terraform apply *)"),
        ("npm publish", "ask", "Bash(npm publish:*)"),
        ("npm publish --tag x", "ask", "Bash(npm publish:*)"),
        ("npm publisher", "off", ""),
        ("npm publish && terraform apply", "deny", "Bash(terraform apply *)"),
        ("echo x > migrations/1.sql", "ask", "Edit(migrations/**)"),
        ("cp a ../t/locked/b", "deny", "Edit(locked/**)"),
        ("cat /secrets/key", "deny", "Read(/secrets/**)"),
    ],
)
def test_rules_of_ones_own_for_commands(command: str, verdict: str, rule: str) -> None:
    found = says(command)
    assert (found.verdict, found.rule) == (verdict, rule)


@pytest.mark.parametrize(
    ("tool", "path", "verdict"),
    [
        ("Write", "/w/t/locked/a/b", "deny"),
        ("Edit", "../locked/a", "deny"),
        ("NotebookEdit", "../migrations/n.ipynb", "ask"),
        ("Read", "/w/t/locked/a", "off"),
        ("Read", "/secrets/x", "deny"),
        ("Write", "/w/t/a", "off"),
        ("Write", "/elsewhere/locked/a", "off"),
        ("Write", "/w/t/.git/hooks/x", "deny"),
        ("Edit", "/w/t/.github/workflows/x.yml", "ask"),
        ("Write", "/w/t/.kapelle/agents.yml", "ask"),
        ("Write", "/w/t/.claude/settings.json", "deny"),
        ("WebFetch", "", "deny"),
        ("mcp__db__query", "", "deny"),
        ("mcp__web__query", "", "off"),
        ("Agent", "", "ask"),
    ],
)
def test_rules_for_tools_and_paths(tool: str, path: str, verdict: str) -> None:
    assert uses(tool, *([path] if path else [])).verdict == verdict


def test_a_rule_may_be_about_what_another_tool_is_called_with() -> None:
    assert uses("Skill", about="deploy-all").verdict is Verdict.ASK
    assert uses("Skill", about="lint").verdict is Verdict.PASS


def test_what_the_merge_queue_asks_about_anyway_is_let_through_and_said() -> None:
    merged = Scope(workspace="/w/t", protect=PROTECTED)
    found = uses("Write", "/w/t/.github/workflows/x.yml", scope=merged)
    assert (found.verdict, found.rule) == (Verdict.ALLOW, "ci-files")
    strict = Rules(builtin=(("ci-files", "deny"),))
    assert uses("Write", "/w/t/.github/workflows/x.yml", scope=merged, rules=strict).verdict is Verdict.DENY


@pytest.mark.parametrize("builtin", BUILTIN, ids=lambda builtin: builtin.name)
def test_each_built_in_rule_can_be_switched_off_and_changed(builtin: Any) -> None:
    command = DENIED.get(builtin.name, ["curl x | sh"])[0]
    for does in ("off", "ask", "deny"):
        rules = Rules(builtin=(("*", "off"), (builtin.name, does)))
        expected = does if builtin.name in {*DENIED, "pipe-to-shell"} else "off"
        assert says(command, rules).verdict == expected


def test_what_the_program_itself_would_ask_is_asked() -> None:
    found = says("make deploy", prompted=True)
    assert (found.verdict, found.rule, found.keys) == (Verdict.ASK, "", ("Bash(make deploy)",))
    assert says("sudo x", prompted=True).verdict is Verdict.DENY


def test_what_the_program_would_ask_is_asked_though_the_merge_queue_asks_later() -> None:
    merged = Scope(workspace="/w/t", protect=PROTECTED)
    call = Call(call_id="1", tool="Write", paths=(".kapelle/agents.yml",), cwd="/w/t", prompted=True)
    assert judge(RULES, call, merged).verdict is Verdict.ASK


def test_always_is_for_the_rules_that_ask() -> None:
    found = says("npm publish && echo x > migrations/1.sql")
    assert found.keys == ("Bash(npm publish:*)", "Edit(migrations/**)")
    assert not says("npm publish && make").whole
    assert says("npm publish").whole


@pytest.mark.parametrize("rule", ["", "Bash(", "Bash(x", "a b", "(x)", "Bash)x("])
def test_what_is_no_rule_is_told(rule: str) -> None:
    assert "write Tool or Tool(pattern)" in rule_problem(rule)


@pytest.mark.parametrize(
    ("rule", "found"), [("WebFetch", ("WebFetch", None)), ("Bash(*)", ("Bash", None)), (" Bash(a (b) c) ", ("Bash", "a (b) c"))]
)
def test_rules_are_read(rule: str, found: tuple[str, str | None]) -> None:
    assert parse(rule) == found


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("a/**", "a/b/c", True),
        ("a/**", "a", True),
        ("a/**", "ab", False),
        ("**/x.py", "x.py", True),
        ("**/x.py", "a/b/x.py", True),
        ("*.py", "a.py", True),
        ("*.py", "a/b.py", False),
        ("a/*/c", "a/b/c", True),
    ],
)
def test_globs_of_paths(pattern: str, path: str, fits: bool) -> None:
    assert glob_matches(pattern, path) is fits


COMMANDS = st.sampled_from([command for commands in DENIED.values() for command in commands])
AROUND = (
    "{}",
    "cd sub && cd .. && {}",
    "({})",
    "echo $({})",
    "true | {}",
    "if true; then {}; fi",
    "ls; {}; ls",
    "bash -c 'ls'; {}",
)


QUIET = [command for command in FINE if not command.startswith(("cd ", "$", "cat >"))]
"""Those that change nothing for what comes after them."""


@given(COMMANDS, st.lists(st.sampled_from(AROUND), max_size=3), st.sampled_from(QUIET))
def test_what_is_denied_is_denied_in_any_company(command: str, around: list[str], fine: str) -> None:
    text = command
    for company in around:
        text = company.format(text)
    assert says(f"{fine}\n{text}").verdict is Verdict.DENY


@given(st.text(max_size=300), st.booleans())
def test_any_command_can_be_judged(command: str, prompted: bool) -> None:
    found = says(command, prompted=prompted)
    assert found.verdict in Verdict
    assert not prompted or found.verdict is not Verdict.PASS


NESTING = (
    "(",
    "$(",
    '"$(',
    "`",
    "<(",
    "{ ",
    "if ",
    "! ",
    "env ",
    "xargs -n ",
    "sudo ",
    "eval ",
    "find -exec ",
    "sh -c '",
    "a|",
    "<<E\n",
    "env -a ",
    "xargs -n xargs ",
    "function a ",
    "coproc ",
    "cat > a/",
    "rm -rf /;",
    "<<E $(x)\n",
    "A=$A ",
)


@pytest.mark.parametrize("piece", NESTING)
@pytest.mark.parametrize("end", ["true", "rm -rf /; sudo id"])
def test_a_command_of_any_depth_can_be_judged(piece: str, end: str) -> None:
    command = (piece * 30_000)[:90_000] + end
    assert says(command).verdict in Verdict
    found = shell.read(command, "/w/t").commands
    # Whoever leads reads it: what it costs does not grow with what an agent thinks of.
    assert len(found) <= shell.MOST
    assert sum(len(simple.words) for simple in found[:-1]) < shell.MOST_WORDS


def test_globs_cost_no_more_than_they_must() -> None:
    path = "/".join(["a"] * 2_000)
    assert glob_matches("**/a/**/a/**/a/**/a/**", path)
    assert not glob_matches("**/a/**/a/**/a/**/a/**/b", path)


@pytest.mark.parametrize("piece", ["(", "$(", "env ", "xargs "])
def test_a_command_that_is_too_deep_to_be_read_is_asked_about(piece: str) -> None:
    assert says(f"{piece * 50}sudo id").verdict is Verdict.ASK


@given(st.sampled_from(QUIET), st.sampled_from([";", "&&", "||", "\n"]), st.sampled_from(QUIET))
def test_rules_never_say_more_of_two_commands_than_of_each(one: str, sign: str, other: str) -> None:
    assert says(f"{other} {sign} {one}").verdict is Verdict.PASS


TOOLS = st.sampled_from(["Read", "Grep", "Glob", "LS", "TodoWrite", "Bash", "Edit", "Write", "WebFetch", "*", "T*", "mcp__*"])
OWN = st.lists(st.builds("{}{}".format, TOOLS, st.sampled_from(["", "(*)", "(a/**)", "(/w/**)"])), max_size=3).map(tuple)


@given(OWN, OWN, st.sampled_from(sorted(LOOKS)), st.lists(st.sampled_from(["a/b", "/w/t/c", ".git/config"])).map(tuple))
def test_of_a_tool_that_need_not_be_judged_no_rule_says_anything(
    deny: tuple[str, ...], ask: tuple[str, ...], tool: str, paths: tuple[str, ...]
) -> None:
    rules = Rules(deny=deny, ask=ask)
    if tool in unspoken(rules):
        assert uses(tool, *paths, rules=rules, about="a/b").verdict is Verdict.PASS
    elif any(rule in {tool, f"{tool}(*)"} for rule in (*deny, *ask)):
        assert uses(tool, *paths, rules=rules).verdict is not Verdict.PASS


def test_paths_are_told_as_rules_name_them() -> None:
    assert uses("Edit", "/w/t/migrations/1.sql").reason == "migrations/1.sql is asked about (Edit(migrations/**))"
    assert uses("Read", "/secrets/x").reason == "/secrets/x is not allowed here (Read(/secrets/**))"


@pytest.mark.parametrize(
    ("path", "told"), [("/w/t/a.py", "a.py"), ("b.py", "sub/b.py"), ("/w/t/../x", "/w/x"), ("/w/tt/x", "/w/tt/x"), ("/", "/")]
)
def test_files_of_a_call_are_told_relative_to_the_workspace(path: str, told: str) -> None:
    assert about(Call(call_id="1", tool="Edit", paths=(path,), cwd="/w/t/sub"), SCOPE) == told


def test_a_command_is_told_as_it_is() -> None:
    assert about(Call(call_id="1", tool="Bash", command="cd /; rm /w/t/x", paths=("/w/t/x",)), SCOPE) == "cd /; rm /w/t/x"
