"""Ids: short, readable, and as many as there are random numbers."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kapelle.core.ids import ALPHABET, BITS, LENGTH, make_id

quick = settings(max_examples=100, deadline=None)
entropies = st.integers(min_value=0, max_value=2**64 - 1)


@quick
@given(entropy=entropies)
def test_an_id_is_its_prefix_and_twelve_letters(entropy: int) -> None:
    assert re.fullmatch(rf"t-[{ALPHABET}]{{{LENGTH}}}", make_id("t", entropy))


@quick
@given(one=entropies, other=entropies)
def test_ids_are_equal_only_when_the_random_bits_that_count_are(one: int, other: int) -> None:
    same = one % 2**BITS == other % 2**BITS
    assert (make_id("t", one) == make_id("t", other)) is same


@pytest.mark.parametrize("place", range(LENGTH))
def test_every_letter_of_an_id_depends_on_the_randomness(place: int) -> None:
    assert make_id("r", 31 << (5 * place)) != make_id("r", 0)


def test_the_prefix_tells_the_kind() -> None:
    assert make_id("r", 7).startswith("r-")
    assert make_id("r", 7).removeprefix("r-") == make_id("t", 7).removeprefix("t-")


def test_the_alphabet_has_no_letters_that_are_mistaken_for_others() -> None:
    assert len(set(ALPHABET)) == 32
    assert not set("ilou") & set(ALPHABET)
