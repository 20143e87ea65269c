"""What was in the way of a task is seen where people look: in what `run` tells, and in `show`."""

import signal

import pytest

from kapelle.testing.places import Place

ASKS = """\
import urllib.error, urllib.request

for _ in range(3):
    try:
        urllib.request.urlopen("http://127.0.0.2/", timeout=20)
    except urllib.error.URLError as error:
        print(error)
open("asked.txt", "w").write("asked")
"""
HOG = "print('the last line', flush=True); x = bytearray(400 << 20); x[::4096] = b'x' * len(x[::4096])\n"
AGENTS = """\
sandbox: SANDBOX
network: {allow: [127.0.0.2]}
limits: {memory: 200MB}
agents: {script: {program: command}}
gates: {hungry: {rounds: 0, checks: [{name: eats, run: python3 hog.py}]}}
"""
FLOW = """\
name: hindered
defaults: {agent: script, gate: none, max_attempts: 1}
tasks:
  asks: {prompt: python3 asks.py}
  eats: {prompt: python3 hog.py}
  checked: {prompt: "echo 1 > checked.txt", gate: hungry}
"""
EATS = "it used more than the 200 MB of memory that it may"
REFUSED = "it leads to 127.0.0.2, which is not public; `private:` in network lets it through"


@pytest.mark.usefixtures("bubblewrap")
def test_limits_and_refusals_are_told_by_run_and_by_show(place: Place) -> None:
    (place.repository / "asks.py").write_text(ASKS)
    (place.repository / "hog.py").write_text(HOG)
    (place.repository / ".kapelle" / "agents.yml").write_text(AGENTS.replace("SANDBOX", "bubblewrap"))
    place.git("add", "-A")
    place.git("commit", "-qm", "hindered")
    place.write("flow.yml", FLOW)

    answer = place.run("run", "../flow.yml")

    assert answer.code == 1, answer.out + answer.err
    told = answer.out + answer.err
    assert f"asks:   127.0.0.2:80 refused: {REFUSED}" in told
    assert f"asks:   127.0.0.2:80 refused 2 times: {REFUSED}" in told
    assert f"eats: met a limit: {EATS}" in told
    assert f"eats: failed: the command ended with exit code {128 + signal.SIGKILL}: {EATS}\n" in told
    assert f"check hungry/eats failed (workspace): {EATS}" in told
    assert f"checked: failed: the check hungry/eats failed (exit code {128 + signal.SIGKILL}): {EATS}" in told
    shown = place.run("show", "asks").out
    assert f"refused by the network rules: 3\n  127.0.0.2:80 refused 3 times: {REFUSED}" in shown
    assert place.run("show", "asks", "--json").json["hindrances"]["network_denied"]["times"] == 3
    shown = place.run("show", "eats").out
    assert f"limits met: 1\n  {EATS}\n" in shown
    failure = place.run("show", "eats", "--json").json["failure"]["message"]
    # What follows is what it said itself, and its shell.
    assert failure.splitlines()[:2] == [f"the command ended with exit code {128 + signal.SIGKILL}: {EATS}", "the last line"]
    assert EATS in place.run("show", "checked").out
