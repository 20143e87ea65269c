from kapelle.adapters.sandboxes.leading import INSIDE, RELAY_INSIDE
from kapelle.adapters.sandboxes.programs import is_below
from kapelle.adapters.workspaces.inside import BEHIND


def test_the_way_out_stands_in_the_way_of_nothing_that_git_needs() -> None:
    """What is mounted later is on top: git would miss all objects of the repository."""
    assert not any(is_below(BEHIND, path) or is_below(path, BEHIND) for path in (INSIDE, RELAY_INSIDE))
