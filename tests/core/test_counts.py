import pytest

from kapelle.core.counts import parse_count


@pytest.mark.parametrize(
    ("text", "number"), [("7", 7), ("500k", 500_000), ("2M", 2_000_000), (" 1.5 m ", 1_500_000), ("1G", 10**9), ("0.0001k", 0)]
)
def test_large_numbers_are_read_as_people_write_them(text: str, number: int) -> None:
    assert parse_count(text) == number


@pytest.mark.parametrize("text", ["", "many", "-1", "1e6", "2 MB", "1,000", "0x10", "²"])
def test_what_is_no_number_is_refused_with_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no number; write it as 2000000 or 2M"):
        parse_count(text)
