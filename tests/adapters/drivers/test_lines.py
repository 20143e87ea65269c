import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.adapters.drivers.lines import Lines

quick = settings(deadline=None)

CUTS = st.lists(st.integers(0, 200), max_size=8)


def fed(lines: Lines, data: bytes, cuts: list[int]) -> list[bytes | None]:
    """Return the lines that *data* gives when it comes cut at *cuts*."""
    places = [0, *sorted(cuts), len(data)]
    found: list[bytes | None] = []
    for start, end in itertools.pairwise(places):
        found.extend(lines.feed(data[start:end]))
    return found


@quick
@given(st.lists(st.sampled_from([b"\n", b"a", b"\r", b"\xff", b""]), max_size=60).map(b"".join), CUTS)
def test_lines_are_the_same_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    lines = Lines()
    *whole, rest = data.split(b"\n")
    assert fed(lines, data, [min(cut, len(data)) for cut in cuts]) == whole
    assert lines.rest() == rest


@quick
@given(st.lists(st.integers(0, 12), max_size=6), CUTS)
def test_a_line_that_is_too_long_is_dropped_and_the_others_are_not(lengths: list[int], cuts: list[int]) -> None:
    lines = Lines(longest=5)
    data = b"".join(b"x" * length + b"\n" for length in lengths)
    expected = [None if length > 5 else b"x" * length for length in lengths]
    assert fed(lines, data, [min(cut, len(data)) for cut in cuts]) == expected


def test_a_line_that_never_ends_takes_no_memory() -> None:
    lines = Lines(longest=10)
    for _ in range(100):
        assert list(lines.feed(b"x" * 7)) == []
    assert sum(map(len, lines._parts)) <= 10
    assert lines.rest() == b""
    assert list(lines.feed(b"\nafter\n")) == [None, b"after"]
