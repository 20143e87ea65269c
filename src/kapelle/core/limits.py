"""How much is taken of what is given; docs/reference/limits.md tells people."""

LONGEST_PROMPT = 1 << 20
"""Characters of a prompt, as written and as rendered: more than any model reads at once."""
LONGEST_NAME = 200
"""Characters of a name: of a run, a task, a branch."""
LONGEST_CODE = 50_000
"""Characters between the braces of one template."""
LONGEST_CONDITION = 10_000
"""Characters of a condition."""
LONGEST_PATTERN = 10_000
"""Characters of a regular expression."""
LONGEST_RESULT = 1 << 20
"""Characters of a structured result, as JSON, or of a result's schema."""
DEEPEST = 100
"""How deep a structured result or a file may be nested."""
LONGEST_SUMMARY = 100_000
"""Characters of what an agent says at the end of its turn that are kept as its task's summary."""
LONGEST_TOLD = 100_000
"""Characters of a text that one event holds."""
LONGEST_INPUTS = 4 << 20
"""Characters of all inputs of a run, as JSON."""
LONGEST_FILE = 2 << 20
"""Bytes of a workflow, a configuration file or a rehearsal."""
MOST_LINES = 100_000
"""Lines of such a file."""
MOST_VALUES = 20_000
"""Values in such a file, aliases written out: two thousand tasks, which take about a second to read."""
MOST_TASKS = 10_000
"""Tasks of one run."""
