"""Frozen objects behave as dataclasses do."""

from dataclasses import FrozenInstanceError, dataclass, field, fields, is_dataclass, replace

import pytest
from pydantic import TypeAdapter

from kapelle.core.frozen import frozen


@frozen
class Place:
    """Somewhere."""

    name: str
    rooms: tuple[int, ...] = ()
    key: str = field(default="", repr=False)


@frozen
class Other:
    name: str
    rooms: tuple[int, ...] = ()
    key: str = ""


@frozen
class Nothing:
    pass


@frozen
class Own:
    name: str

    def __repr__(self) -> str:
        return f"<{self.name}>"


def test_objects_are_equal_when_all_their_fields_are() -> None:
    place = Place(name="a", rooms=(1,))
    assert place == Place(name="a", rooms=(1,))
    assert hash(place) == hash(Place(name="a", rooms=(1,)))
    assert place != Place(name="a")
    assert place != Other(name="a", rooms=(1,))
    assert Nothing() == Nothing()
    assert len({place, Place(name="a", rooms=(1,)), Nothing(), Nothing()}) == 2


def test_nothing_can_be_changed_or_added() -> None:
    place = Place(name="a")
    with pytest.raises(FrozenInstanceError):
        place.name = "b"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises((FrozenInstanceError, TypeError)):
        place.other = "b"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(FrozenInstanceError):
        del place.name
    assert not hasattr(place, "__dict__")


def test_objects_are_made_by_keyword_only() -> None:
    with pytest.raises(TypeError):
        Place("a")  # pyright: ignore[reportCallIssue]


def test_objects_show_what_they_hold_but_for_secrets() -> None:
    assert repr(Place(name="a", rooms=(1, 2), key="secret")) == "Place(name='a', rooms=(1, 2))"
    assert repr(Own(name="a")) == "<a>"
    assert repr(Nothing()) == "Nothing()"


def test_they_are_dataclasses_to_everybody_else() -> None:
    @dataclass(frozen=True, kw_only=True, slots=True)
    class Plain:
        """Somewhere."""

        name: str
        rooms: tuple[int, ...] = ()
        key: str = field(default="", repr=False)

    assert is_dataclass(Place)
    assert [each.name for each in fields(Place)] == [each.name for each in fields(Plain)]
    assert replace(Place(name="a"), name="b") == Place(name="b")
    assert repr(Place(name="a")) == repr(Plain(name="a")).rpartition(".")[2].replace("Plain", "Place")
    assert TypeAdapter(Place).validate_json('{"name": "a", "rooms": [1]}') == Place(name="a", rooms=(1,))
    assert Place.__doc__ == "Somewhere."
