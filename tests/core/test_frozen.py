"""Frozen objects behave as dataclasses do."""

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, dataclass, field, fields, is_dataclass

import pytest
from pydantic import TypeAdapter

from kapelle.core.frozen import SELDOM, frozen, replace


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
class Shop(Place):
    """A place with goods."""

    goods: Mapping[str, int] = field(default_factory=dict[str, int])


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
        del place.name  # pyright: ignore[reportAttributeAccessIssue]
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
    assert dataclasses.replace(Place(name="a"), name="b") == Place(name="b")
    assert repr(Place(name="a")) == repr(Plain(name="a")).rpartition(".")[2].replace("Plain", "Place")
    assert TypeAdapter(Place).validate_json('{"name": "a", "rooms": [1]}') == Place(name="a", rooms=(1,))
    assert Place.__doc__ == "Somewhere."


def test_each_object_has_defaults_of_its_own_and_those_of_what_it_is_made_from() -> None:
    one, other = Shop(name="a", key="k"), Shop(name="a", key="k")
    assert one == other
    assert one.goods == {}
    assert one.goods is not other.goods
    assert one.rooms == ()
    assert one != Place(name="a", key="k")
    with pytest.raises(FrozenInstanceError):
        one.goods = {}  # pyright: ignore[reportAttributeAccessIssue]


def test_what_is_missing_or_unknown_is_named() -> None:
    with pytest.raises(TypeError, match=r"Place\.__init__\(\) missing 1 required keyword-only argument: 'name'"):
        Place()  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match=r"Shop\.__init__\(\) got an unexpected keyword argument 'nome'"):
        Shop(nome="a")  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match="Place has no field 'nome'"):
        replace(Place(name="a"), nome="b")


def test_one_like_another_differs_only_in_what_is_said() -> None:
    shop = Shop(name="a", rooms=(1,), key="k", goods={"tea": 3})
    like = replace(shop, name="b", rooms=())
    assert like == Shop(name="b", rooms=(), key="k", goods={"tea": 3})
    assert like.goods is shop.goods
    assert shop.name == "a"
    assert replace(Nothing()) == Nothing()


def test_they_can_be_copied_and_pickled() -> None:
    shop = Shop(name="a", rooms=(1,), goods={"tea": 3})
    for twin in (copy.copy(shop), copy.deepcopy(shop), pickle.loads(pickle.dumps(shop))):  # noqa: S301 our own
        assert twin == shop
        assert twin is not shop
        with pytest.raises(FrozenInstanceError):
            twin.name = "b"  # pyright: ignore[reportAttributeAccessIssue]


def test_how_one_is_made_can_be_asked_before_the_first_is() -> None:
    @frozen
    class Late:
        name: str
        rooms: tuple[int, ...] = ()

    assert list(inspect.signature(Late).parameters) == ["name", "rooms"]
    assert inspect.get_annotations(Late.__init__) == {"name": str, "rooms": tuple[int, ...], "return": None}


def made(kind: Callable[..., Place], given: Mapping[str, str]) -> Place:
    return kind(**given)


def test_the_many_are_made_and_copied_as_the_few_are() -> None:
    @frozen
    class Crowd(Place):
        goods: dict[str, int] = field(default_factory=dict[str, int])

    crowd = [Crowd(name=str(number)) for number in range(3 * SELDOM)]
    assert [each.name for each in crowd] == [str(number) for number in range(3 * SELDOM)]
    assert len({id(each.goods) for each in crowd}) == len(crowd)
    assert all(replace(each, rooms=(1,)) == Crowd(name=each.name, rooms=(1,)) for each in crowd)
    assert all(replace(each).goods is each.goods for each in crowd)
    for wrong in ({}, {"nome": "a"}, {"name": "a", "nome": "a"}):
        with pytest.raises(TypeError) as few:
            made(Place, wrong)
        with pytest.raises(TypeError) as many:
            made(Crowd, wrong)
        assert str(many.value).replace("test_the_many_are_made_and_copied_as_the_few_are.<locals>.Crowd", "Place") == str(
            few.value
        )
    with pytest.raises(TypeError, match="positional"):
        Crowd("a")  # pyright: ignore[reportCallIssue]


def test_one_of_no_module_is_made() -> None:
    found: dict[str, type] = {}
    exec("@frozen\nclass Alone:\n    name: str", {"frozen": frozen, "__name__": "loaded_by_its_path"}, found)  # noqa: S102
    assert [found["Alone"](name=str(number)).name for number in range(2 * SELDOM)] == [
        str(number) for number in range(2 * SELDOM)
    ]


@pytest.mark.parametrize("name", ["__init__", "__post_init__"])
def test_nothing_may_happen_when_one_is_made(name: str) -> None:
    with pytest.raises(TypeError, match=f"Busy is frozen and has {name}"):
        frozen(type("Busy", (), {name: lambda _: None}))


def test_what_inherits_one_keeps_an_init_of_its_own() -> None:
    @frozen
    class Base:
        """Something."""

        x: int

    class Own(Base):
        def __init__(self, x: int) -> None:
            super().__init__(x=x + 1)

    assert [Own(1).x, Own(2).x] == [2, 3]
    assert Base(x=1).x == 1
