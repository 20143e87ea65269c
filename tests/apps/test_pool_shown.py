"""`kapelle pool`: what there is of each kind of agent, and what waits for one."""

from kapelle.testing.places import Place, until

AGENTS = "agents: {script: {program: command, limit: 1}}\n"
WORKFLOW = """\
name: shown
defaults: {agent: script, gate: none}
tasks: {one: {priority: critical, prompt: "mkfifo fifo; read answer < fifo"}, two: {prompt: "true"}, three: {prompt: "true"}}
"""


def test_what_waits_for_an_agent_is_counted(place: Place) -> None:
    (place.repository / ".kapelle" / "agents.yml").write_text(AGENTS)
    place.write("flow.yml", WORKFLOW)
    leader = place.start("run", "../flow.yml")
    until(leader, "one: started")
    (found,) = place.run("pool", "--json").json
    table = place.run("pool").out.splitlines()
    place.run("cancel", "shown")
    leader.communicate()
    assert (found["config"], found["at_work"], found["waiting"]) == ("script", 1, 2)
    assert table[1].split() == ["script", "shop", "1", "0", "0", "2", "as", "tasks", "come"]
