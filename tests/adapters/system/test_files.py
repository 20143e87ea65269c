"""Open files: raised while somebody leads, as they were afterwards, and never all for one agent."""

import resource
from collections.abc import Iterator

import pytest

from kapelle.adapters.system import files


@pytest.fixture
def few() -> Iterator[int]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    yield min(hard, files.MOST)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def now() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_as_many_as_may_be_while_it_leads(few: int) -> None:
    assert files.soft_limit() is None
    with files.many_files():
        assert now() == few
        with files.many_files():
            # What is started is to have what there was at the very first.
            assert files.soft_limit() == 256
        assert now() == few
    assert now() == 256
    assert files.soft_limit() is None


@pytest.mark.usefixtures("few")
def test_never_all_for_one_agent() -> None:
    assert files.share(96) == 8
    with files.many_files():
        assert files.share(96) == 96
