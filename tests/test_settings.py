from dataclasses import dataclass
from typing import Any, Literal

import pytest

from mirage_sim.settings import RolloutSettings
from mirage_sim.settings.fields import Row, Settings, group, rows, setting, texts


@dataclass(frozen=True, kw_only=True)
class Part(Settings):
    name: str = "part"
    share: float = setting(0.5, "A share.", least=0, most=1)


@dataclass(frozen=True, kw_only=True)
class Other(Part):
    name: str = "other"
    sizes: tuple[int, int] = setting((1, 2), "Two sizes.", least=1)


@dataclass(frozen=True, kw_only=True)
class Example(Settings):
    choice: Part = group("part", "A choice.", options={"part": Part, "other": Other})
    count: int = setting(3, "A count.", least=1)
    speed: float = setting(1.0, "A speed.", above=0)
    form: Literal["a", "b"] | None = setting(None, "A form.")
    walk: int | str = setting(0, "A walk.")
    flags: tuple[bool, ...] = setting((), "Some flags.")
    inner: Part = setting(Part(share=0.25), "A part.")
    many: dict[str, Part] = setting({}, "Several parts.")
    start: str = setting("x", "A start.", name="from")


def test_values_become_those_of_the_types() -> None:
    read = Example.read(
        {
            "choice": {"name": "other", "sizes": [3, 4]},
            "speed": 2,
            "walk": "a",
            "flags": [True, False],
            "many": {"one": {"share": 1}},
            "from": "here",
        }
    )
    assert read.choice == Other(sizes=(3, 4)) and read.start == "here"
    assert type(read.speed) is float and read.flags == (True, False) and read.many["one"] == Part(share=1.0)
    assert read.inner.share == 0.25 and read.form is None
    assert Example.read(read.plain()) == read


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, "count: expected a positive integer, got 0"),
        ({"count": True}, "count: expected a positive integer, got True"),
        ({"count": 1.5}, "count: expected a positive integer, got 1.5"),
        ({"speed": 0}, "speed: expected a positive number, got 0"),
        ({"speed": float("nan")}, "speed: expected a positive number, got nan"),
        ({"form": "c"}, "form: expected one of ['a', 'b'] or null, got 'c'"),
        ({"walk": None}, "walk: expected an integer or text, got None"),
        ({"flags": [1]}, "flags: expected true or false, got 1"),
        ({"inner": {"share": 2}}, "inner.share: expected a number from 0 to 1, got 2"),
        ({"inner": {"size": 2}}, "inner.size: expected one of ['name', 'share'], got the unknown key 'size'"),
        ({"inner": 3}, "inner: expected a mapping of names to values, got 3"),
        ({"many": {"one": {"share": -1}}}, "many.one.share: expected a number from 0 to 1, got -1"),
        ({"choice": {"name": "none"}}, "choice: expected one of ['other', 'part'], got 'none'"),
        ({"choice": {"name": "other", "sizes": [1]}}, "choice.sizes: expected a list of 2 values, each a positive "),
        ({"start": "y"}, "start: expected one of ["),
    ],
)
def test_unusable_values_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as error:
        Example.read({"choice": {"name": "part"}} | change)
    assert str(error.value).startswith(message)


def test_missing_values_are_named() -> None:
    with pytest.raises(ValueError, match=r"^choice: expected a value, got none$"):
        Example.read({})


def test_rows_describe_settings_and_their_parts() -> None:
    found = {row.name: row for row in rows(Example)}
    assert found["count"] == Row("count", "3", "a positive integer", "A count.")
    assert found["inner.share"] == Row("inner.share", "0.25", "a number from 0 to 1", "A share.")
    assert found["from"].default == "x" and "choice" not in found and "inner.name" not in found


def test_texts_are_the_names_of_text_settings() -> None:
    assert texts(Example) == {"walk", "from", "choice.name", "inner.name", "many.*.name"}
    assert {"image", "output", "policy", "walk"} <= texts(RolloutSettings)
    assert not {"format", "memory", "steps"} & texts(RolloutSettings)
