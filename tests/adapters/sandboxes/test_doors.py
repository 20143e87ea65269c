"""A runtime, an image policy and a whole sandbox that come from a plug-in: an installed package with entry points."""

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from kapelle.testing.places import Place

MODULE = """
    from kapelle.adapters.sandboxes.container.images import HostImages
    from kapelle.adapters.sandboxes.container.runtimes import DockerApi
    from kapelle.adapters.sandboxes.process import ProcessSandbox
    from kapelle.core.containers import ImageRefused


    class Elsewhere(DockerApi):
        name = "elsewhere"
        title = "Elsewhere"
        variable = "ELSEWHERE"

        def sockets(self):
            return iter(())


    class Ours:
        name = "ours"

        def settle(self, argument, root):
            if argument != "good":
                raise ImageRefused("ours are all called good")
            return argument

        def image(self, argument):
            return HostImages().image("")


    class Cage(ProcessSandbox):
        name = "cage"
"""
POINTS = """
    [kapelle.adapters]
    runtime:elsewhere = plug_in:Elsewhere
    images:ours = plug_in:Ours
    sandbox:cage = plug_in:Cage
"""


@pytest.fixture
def plugged(tmp_path: Path) -> dict[str, str]:
    folder = tmp_path / "plug-in"
    described = folder / "plug_in-1.0.dist-info"
    described.mkdir(parents=True)
    (folder / "plug_in.py").write_text(dedent(MODULE))
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: plug-in\nVersion: 1.0\n")
    (described / "entry_points.txt").write_text(dedent(POINTS))
    return {"PYTHONPATH": str(folder)}


def test_they_are_used_as_ours_are(place: Place, plugged: dict[str, str], podman: str) -> None:
    agents = place.repository / ".kapelle" / "agents.yml"
    agents.write_text(
        "sandbox: container\nimage: {ours: good}\n"
        "agents:\n  script: {program: command}\n  caged: {program: command, sandbox: cage}\n"
    )
    flow = "name: f\ndefaults: {gate: none}\ntasks:\n  a: {agent: script, prompt: 'id -u > a.txt'}\n"
    place.write("flow.yml", f"{flow}  b: {{agent: caged, prompt: 'echo 1 > b.txt'}}\n")

    answer = place.run("run", "../flow.yml", env={**plugged, "CONTAINER_HOST": "", "ELSEWHERE": podman})

    assert answer.code == 0, answer.out + answer.err
    assert place.git("show", "main:a.txt") != "0"
    assert place.git("show", "main:b.txt") == "1"
    told = place.run("doctor", env={**plugged, "CONTAINER_HOST": "", "ELSEWHERE": podman}).out
    assert f"at {podman.removeprefix('unix://')}" in told
    agents.write_text(agents.read_text().replace("good", "bad"))
    assert "ours are all called good" in place.run("run", "../flow.yml", env=plugged).err


def test_without_them_nothing_of_containers_is_loaded() -> None:
    """Who does not use them does not wait for them."""
    code = "import sys, kapelle.apps.cli.main, kapelle.apps.compose; kapelle.apps.compose.sandboxes()['process']"
    code += "; print([name for name in sys.modules if name.split('.')[0] in {'aiodocker', 'aiohttp'} or 'container' in name])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env={**os.environ})
    assert done.stdout.strip() in {"[]", "['kapelle.core.containers']"}
