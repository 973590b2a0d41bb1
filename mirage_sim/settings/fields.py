"""Settings as dataclasses: every field carries its type, default, range and one sentence for ``--help``.

A command's settings are a subclass of :class:`Settings`. Building one checks all values, so a function that takes
settings needs no checks of its own. :mod:`mirage_sim.build` composes them from the command line.
"""

import dataclasses
import math
import types
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

Self = TypeVar("Self", bound="Settings")


def setting(
    default: Any,
    help: str,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    name: str = "",
) -> Any:
    """Declare a field of a :class:`Settings` class.

    Args:
        default: the value if the user sets none; ``MISSING`` if the user must set one.
        help: one sentence for ``--help``.
        least: smallest number allowed.
        most: largest number allowed.
        above: numbers must be greater than this.
        name: what users type, where Python does not allow the name (``from``).
    """
    metadata = {"help": help, "least": least, "most": most, "above": above, "name": name}
    if isinstance(default, (dict, Settings)):
        return dataclasses.field(default_factory=lambda: default, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def group(default: str, help: str, *, options: Mapping[str, type] | None = None) -> Any:
    """Declare a field that the user fills by choosing among named options, such as ``memory=rgb``.

    Args:
        default: the option if the user chooses none.
        help: one sentence for ``--help``.
        options: the settings class of every option, which its field ``name`` identifies; None if the options are the
            YAML files in ``configs/FIELD``.
    """
    return dataclasses.field(metadata={"help": help, "group": default, "options": options})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a command, or a part of them.

    Raises:
        ValueError: for a value of another type or out of range: ``name: expected X, got Y``.
    """

    example: ClassVar[str] = ""
    folders: ClassVar[tuple[str, ...]] = ("output", "folder")  #: settings whose folders must be writable
    positional: ClassVar[tuple[str, ...]] = ()  #: settings that words without ``name=`` set, in this order

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = _convert(hints[field.name], getattr(self, field.name), field.metadata, user_name(field))
            object.__setattr__(self, field.name, value)

    @classmethod
    def read(cls: type[Self], values: Mapping[str, Any]) -> Self:
        """Build settings from plain values by the names that users type.

        Raises:
            ValueError: for unknown and missing names, and for unusable values.
        """
        names = {user_name(field): field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - set(names)):
            raise ValueError(f"{unknown[0]}: expected one of {sorted(names)}, got the unknown key {unknown[0]!r}")
        required = [user_name(field) for field in dataclasses.fields(cls) if _is_required(field)]
        if missing := [name for name in required if name not in values]:
            raise ValueError(f"{missing[0]}: expected a value, got none")
        return cls(**{names[name]: value for name, value in values.items()})

    def plain(self) -> dict[str, Any]:
        """Return the values as JSON can hold them, by the names that users type."""
        return {user_name(field): _plain(getattr(self, field.name)) for field in dataclasses.fields(self)}


class Row(NamedTuple):
    """A line of ``--help``: `name`, `default` and `expected` value, `help` sentence."""

    name: str
    default: str
    expected: str
    help: str


def rows(cls: type[Settings], prefix: str = "", default: Settings | None = None) -> Iterator[Row]:
    """Describe the settings of a class; those of its parts follow as ``part.name``, groups are left out.

    Args:
        cls: the class.
        prefix: of all names.
        default: an instance with the default values; None for those of the class.
    """
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        name, kind = prefix + user_name(field), hints[field.name]
        if "group" in field.metadata:
            continue
        if _is_settings(kind):
            yield from rows(kind, f"{name}.", _default(field))
        elif "help" in field.metadata:
            value = _default(field) if default is None else getattr(default, field.name)
            shown = "" if value is MISSING else text_of(value)
            yield Row(name, shown, expected(kind, field.metadata), field.metadata["help"])


def groups(cls: type[Settings]) -> list[dataclasses.Field[Any]]:
    """Return the fields of a class that are groups."""
    return [field for field in dataclasses.fields(cls) if "group" in field.metadata]


def defaults(cls: type[Settings]) -> dict[str, Any]:
    """Return the plain default values of a class by the names that users type, ``???`` where the user must set one."""
    fields = [field for field in dataclasses.fields(cls) if "help" in field.metadata or not _is_required(field)]
    fields = [field for field in fields if "group" not in field.metadata]
    return {user_name(field): "???" if _is_required(field) else _plain(_default(field)) for field in fields}


def texts(cls: type[Settings], prefix: str = "") -> set[str]:
    """Return glob patterns of the names of settings whose values are text, which is taken literally.

    Args:
        cls: the class.
        prefix: of all names.
    """
    found, hints = set(), get_type_hints(cls)
    for field in dataclasses.fields(cls):
        kind, name = hints[field.name], prefix + user_name(field)
        if str in (get_args(kind) if _is_union(kind) else (kind,)):
            found.add(name)
        for part in filter(_is_settings, (kind, *(field.metadata.get("options") or {}).values())):
            found |= texts(part, f"{name}.")
        if get_origin(kind) is dict and _is_settings(get_args(kind)[1]):
            found |= texts(get_args(kind)[1], f"{name}.*.")
    return found


def user_name(field: "dataclasses.Field[Any]") -> str:
    """Return the name of a field that users type."""
    return field.metadata.get("name") or field.name


def text_of(value: Any) -> str:
    """Return a default value as the command line takes it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(text_of, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{text_of(inner)}' for key, inner in value.items())}}}"
    return str(value)


def expected(kind: Any, limits: Mapping[str, Any]) -> str:
    """Return what a setting takes, in words: the X of ``name: expected X, got Y``."""
    if _is_union(kind):
        alternatives = [expected(each, limits) for each in get_args(kind) if each is not type(None)]
        return " or ".join([*alternatives, *(["null"] if type(None) in get_args(kind) else [])])
    if get_origin(kind) is Literal:
        return f"one of {list(get_args(kind))}"
    if get_origin(kind) is tuple:
        inner, *others = get_args(kind)
        count = "" if others == [...] else f"{len(get_args(kind))} "
        return f"a list of {count}values, each {expected(inner, limits)}"
    if kind in (int, float):
        return _expected_number("integer" if kind is int else "number", limits)
    return {bool: "true or false", str: "text"}.get(kind, "a mapping of names to values")


def _expected_number(noun: str, limits: Mapping[str, Any]) -> str:
    least, most, above = (limits.get(name) for name in ("least", "most", "above"))
    article = "an" if noun == "integer" else "a"
    if most is None and (above == 0 or (least == 1 and noun == "integer")):
        return f"a positive {noun}"
    lower = f" from {least:g}" if least is not None else f" above {above:g}" if above is not None else ""
    upper = "" if most is None else f" to {most:g}" if least is not None else f" and up to {most:g}"
    return f"{article} {noun}{lower}{upper}"


def _convert(kind: Any, value: Any, limits: Mapping[str, Any], name: str) -> Any:
    """Return the value as `kind`: lists become tuples, integers numbers, mappings settings.

    Raises:
        ValueError: if it is no such value, or is out of range.
    """
    if options := limits.get("options"):
        kind = _option(options, value, name)
    origin, inner = get_origin(kind), get_args(kind)
    if _is_union(kind):
        for each in inner:
            with suppress(ValueError):
                return _convert(each, value, limits, name)
    elif _is_settings(kind) and isinstance(value, Mapping):
        try:
            return kind.read(value)
        except ValueError as error:
            raise ValueError(f"{name}.{error}") from error
    elif origin is dict and isinstance(value, Mapping):
        return {key: _convert(inner[1], each, limits, f"{name}.{key}") for key, each in value.items()}
    elif origin is tuple and isinstance(value, (list, tuple)):
        kinds = inner[:1] * len(value) if inner[-1] is ... else inner
        if len(kinds) == len(value):
            return tuple(_convert(each, part, limits, name) for each, part in zip(kinds, value, strict=True))
    elif _is_plain(kind, value) and (type(value) not in (int, float) or _is_within(value, limits)):
        return float(value) if kind is float else value
    raise ValueError(f"{name}: expected {expected(kind, limits)}, got {value!r}")


def _is_plain(kind: Any, value: Any) -> bool:
    """Whether a value is of a kind that has no parts."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    return kind is Any or (isinstance(value, kind) if _is_settings(kind) else type(value) is kind)


def _is_within(value: Any, limits: Mapping[str, Any]) -> bool:
    least, most, above = (limits.get(name) for name in ("least", "most", "above"))
    return (least is None or value >= least) and (most is None or value <= most) and (above is None or value > above)


def _option(options: Mapping[str, type], value: Any, name: str) -> type:
    """Return the settings class of the option that a value, or its field ``name``, is."""
    chosen = str(value.get("name") if isinstance(value, Mapping) else getattr(value, "name", value))
    if chosen not in options:
        raise ValueError(f"{name}: expected one of {sorted(options)}, got {chosen!r}")
    return options[chosen]


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _is_settings(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Settings)


def _is_required(field: "dataclasses.Field[Any]") -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _default(field: "dataclasses.Field[Any]") -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.plain()
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value
