"""What is written of a kind is the same before and after something was built for it, and is read as what it was."""

import json
import math
from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest

from kapelle.adapters.store.codecs import Codec
from kapelle.adapters.store.tables import BODIES
from kapelle.core.account import Account
from kapelle.core.agent import ProcessRef
from kapelle.core.budget import Price
from kapelle.core.events import KINDS
from kapelle.core.requests import Submit
from kapelle.core.run import RunSpec
from kapelle.core.task import TaskSpec
from kapelle.testing.conformance.samples import some

OTHERS = (RunSpec, TaskSpec, ProcessRef, Price, Account)


@pytest.mark.parametrize("kind", [*KINDS.values(), *BODIES.values(), *OTHERS], ids=lambda kind: kind.__name__)
def test_what_is_written_is_the_same_with_and_without_what_is_built(kind: type[Any]) -> None:
    values = some(kind, examples=20)
    little, much = Codec(kind), Codec(kind, worth_it=0)
    written = [little.write(value) for value in values]
    assert written == [much.write(value) for value in values]
    assert [little.read(text) for text in written] == values
    assert [little.take(json.loads(text)) for text in written] == values


@pytest.mark.parametrize("value", [math.inf, math.nan, timedelta(days=400, microseconds=1), timedelta(seconds=-1)], ids=str)
def test_numbers_and_times_at_the_edge_are_written_alike(value: object) -> None:
    kind = tuple[type(value)]
    assert Codec(kind).write((value,)) == Codec(kind, worth_it=0).write((value,))


def test_a_request_to_accept_a_run_has_the_fields_that_its_row_is_written_with() -> None:
    # By hand, so that its specification is written once: a further field would not be kept.
    assert [each.name for each in fields(Submit)] == ["run_id", "spec"]


def test_nothing_is_built_to_write_little() -> None:
    codec, text = Codec(str, worth_it=100), "x" * 38
    for _ in range(3):
        codec.write(text)
        assert "_adapter" not in vars(codec)
    codec.write(text)
    assert "_adapter" in vars(codec)


@pytest.mark.parametrize("worth_it", [0, 1000])
def test_what_is_left_out_is_left_out(worth_it: int) -> None:
    codec = Codec(ProcessRef, without={"pid"}, worth_it=worth_it)
    assert codec.write(ProcessRef(boot_id="b", pid=1, started="s")) == '{"boot_id":"b","started":"s"}'
