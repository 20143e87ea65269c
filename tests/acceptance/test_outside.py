"""What Kapelle itself does in a workspace, outside of the sandbox, starts nothing that an agent has put there."""

import json
import os
from pathlib import Path
from textwrap import dedent

import pytest

from kapelle.testing.places import Place, Said

AGENTS = """\
sandbox: SANDBOX
agents: {coder: {program: claude, tools: {allow: [Bash]}}}
gates: {quick: {rounds: 3, checks: [{name: there, run: "test -f done.txt"}]}}
"""
FLOW = """\
name: outside
defaults: {agent: coder, gate: quick, max_attempts: 1}
tasks: {one: {prompt: Plant}}
"""
PLANT = """
    import os, subprocess
    # What the operator's filter, merge driver and converter load: they are started in the workspace.
    evil = "import os, sys; open('MARKER', 'a').write(f'{sys.argv} {os.getuid()}\\\\n'); sys.stdout.write(sys.stdin.read())"
    open("tidy.py", "w").write(evil)
    open(".gitattributes", "w").write("*.txt filter=tidy merge=tidy diff=tidy\\n")
    # What a relative entry of PATH would find.
    os.makedirs("bin")
    for name in ("git", "bwrap", "setpriv", "sh", "python3"):
        open(f"bin/{name}", "w").write(f"#!/bin/sh\\necho {name} $(/usr/bin/id) >> MARKER\\nexec /usr/bin/{name} \\"$@\\"\\n")
        os.chmod(f"bin/{name}", 0o755)
    open("seen.txt", "w").write(subprocess.run(["/usr/bin/git", "config", "--list"], capture_output=True, text=True).stdout)
    common = subprocess.check_output(["/usr/bin/git", "rev-parse", "--git-common-dir"], text=True).strip()
    for folder, _, names in os.walk(common):
        for name in names:
            try: text = open(os.path.join(folder, name), errors="replace").read()
            except OSError: continue
            if "planted-token" in text: open("seen.txt", "a").write(os.path.join(folder, name))
    open("done.txt", "w").write("done")
"""
WITHIN = """
    import os, subprocess
    # A repository within, with settings of its own, as if it were a submodule that the agent has committed.
    git = lambda *words, cwd=".": subprocess.run(["/usr/bin/git", *words], cwd=cwd, check=True, capture_output=True)
    os.makedirs("inner")
    git("init", "-q", cwd="inner")
    open("inner/.gitattributes", "w").write("* filter=evil\\n")
    open("inner/a.txt", "w").write("a")
    git("add", "-A", cwd="inner")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a", cwd="inner")
    git("config", "filter.evil.clean", f"sh -c 'echo inner >> MARKER; cat'", cwd="inner")
    open("inner/a.txt", "w").write("changed")
    git("add", "inner", "-f")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "inner")
"""

# Somebody who stays in the background exchanges a directory for a link, again and again: RENAME_EXCHANGE of renameat2(2).
RACE = """
    import ctypes, os, time
    if os.fork() == 0:
        os.setsid()
        for stream in (0, 1, 2): os.close(stream)
        if os.fork(): os._exit(0)
        os.mkdir("folder")
        for number in range(20): open(f"folder/{number}.txt", "w").write("mine")
        os.symlink("OUTSIDE", "link")
        libc, begun = ctypes.CDLL(None), time.monotonic()
        while time.monotonic() - begun < 120: libc.renameat2(-100, b"folder", -100, b"link", 2)
        os._exit(0)
    while not os.path.lexists("link"): pass
"""


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """What is planted writes into this file, if it ever runs outside."""
    marker = tmp_path / "planted"
    marker.touch(mode=0o666)
    marker.chmod(0o666)
    return marker


def plant(place: Place, marker: Path, script: str) -> Said:
    """Let an agent in bubblewrap run *script*, for an operator whose git has a lot set up."""
    place.git("remote", "add", "origin", "https://someone:planted-token@example.org/x.git")
    for name, value in {
        "filter.tidy.clean": "python3 -m tidy",
        "filter.tidy.smudge": "python3 -m tidy",
        "merge.tidy.driver": "python3 -m tidy %O %A %B",
        "diff.tidy.textconv": "python3 tidy.py",
        "http.https://example.org/.extraheader": "AUTHORIZATION: basic planted-token",
        "credential.helper": "!echo password=planted-token",
        "kapelle.deploytoken": "planted-token",
        "remote.origin.fetch": "+refs/heads/*:refs/remotes/origin/*",
    }.items():
        place.git("config", name, value)
    place.git("reflog", "expire", "--expire=now", "--all")
    (place.repository / ".git" / "FETCH_HEAD").write_text("0 branch 'main' of https://someone:planted-token@example.org/x\n")
    (place.repository / "plant.py").write_text(dedent(script).replace("MARKER", str(marker)))
    (place.repository / ".kapelle" / "agents.yml").write_text(AGENTS.replace("SANDBOX", "bubblewrap"))
    place.git("add", "-A")
    place.git("commit", "-qm", "plant")
    place.write("flow.yml", FLOW)
    turns = [{"tools": [{"Bash": {"command": "python3 plant.py"}}]}, {"say": "Done."}]
    place.write("rehearsal.yml", json.dumps({"rules": [{"when": {"prompt": "Plant"}, "turns": turns}]}))

    path = f"./bin::{os.environ['PATH']}"
    return place.run("run", "../flow.yml", "--rehearse", "../rehearsal.yml", env={"PATH": path})


@pytest.mark.usefixtures("bubblewrap")
def test_nothing_that_an_agent_planted_runs_outside_and_it_sees_no_credentials(place: Place, marker: Path) -> None:
    answer = plant(place, marker, PLANT)

    assert answer.code == 0, answer.out + answer.err
    assert marker.read_text() == ""
    seen = place.git("show", "main:seen.txt")
    assert "planted-token" not in seen
    assert "/config" not in seen
    # What it needs to work is there.
    assert "remote.origin.url=https://example.org/x.git" in seen
    assert "remote.origin.fetch=+refs/heads/*:refs/remotes/origin/*" in seen
    assert place.git("show", "main:tidy.py")


@pytest.mark.usefixtures("bubblewrap")
def test_a_repository_within_is_refused_and_not_looked_into(place: Place, marker: Path) -> None:
    answer = plant(place, marker, WITHIN)

    assert marker.read_text() == ""
    assert answer.code == 1, answer.out + answer.err
    assert "there is a git repository inside the workspace: inner" in answer.out


@pytest.mark.usefixtures("bubblewrap")
def test_who_exchanges_directories_for_links_gets_nothing_in_and_nothing_out(place: Place, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o700)
    for number in range(20):
        (outside / f"{number}.txt").write_text("private of the operator")
    # A check that fails leaves work for more rounds, each with a commit and a clean-up.
    plant(place, outside, RACE.replace("OUTSIDE", str(outside)))

    assert sorted(path.read_text() for path in outside.iterdir()) == ["private of the operator"] * 20
    said = place.git("cat-file", "--batch-check", "--batch-all-objects").splitlines()
    blobs = [line.split()[0] for line in said if " blob 23" in line]
    assert not [blob for blob in blobs if "private" in place.git("cat-file", "blob", blob)]
