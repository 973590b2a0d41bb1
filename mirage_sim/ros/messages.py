"""What all messages share: fields that become a message, time, health."""

import importlib
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, TypeVar

Fields = dict[str, Any]
Message = TypeVar("Message")


def message(cls: type[Message], fields: Mapping[str, Any]) -> Message:
    """An rclpy message with these fields; those not given keep their defaults.

    Args:
        cls: a message class of a sourced ROS or of its wheels.
        fields: nested dicts and lists, as the functions of this module make them.

    Raises:
        ValueError: if the class has no field of that name.
    """
    kinds: Mapping[str, str] = cls.get_fields_and_field_types()  # type: ignore[attr-defined]
    made = cls()
    for name, value in fields.items():
        if name not in kinds:
            raise ValueError(f"{name}: expected a field of {cls.__name__} ({', '.join(kinds)})")
        if isinstance(value, Mapping):
            value = message(type(getattr(made, name)), value)
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            package, kind = kinds[name].removeprefix("sequence<").removesuffix(">").split("/")
            part = getattr(importlib.import_module(f"{package}.msg"), kind)
            value = [message(part, entry) for entry in value]
        setattr(made, name, value)
    return made


def stamp(seconds: float) -> Fields:
    """``builtin_interfaces/Time``, to the nearest nanosecond: ``0.1 * 3`` is 300,000,000 ns.

    Raises:
        ValueError: if it is negative, not finite or does not fit (2^31 s).
    """
    if not (math.isfinite(seconds) and 0 <= seconds < 2**31 - 1):
        raise ValueError(f"seconds: expected a time in [0, 2^31 - 1), got {seconds}")
    sec, nanosec = divmod(round(Fraction(seconds) * 10**9), 10**9)
    return {"sec": sec, "nanosec": nanosec}


def seconds_of(time: Any) -> float:
    """Seconds of a ``builtin_interfaces/Time`` message."""
    return time.sec + time.nanosec * 1e-9


def header(seconds: float, frame_id: str) -> Fields:
    """``std_msgs/Header``."""
    return {"stamp": stamp(seconds), "frame_id": frame_id}


def clock(seconds: float) -> Fields:
    """``rosgraph_msgs/Clock``."""
    return {"clock": stamp(seconds)}


def diagnostics(
    name: str, values: Mapping[str, object], seconds: float, level: int = 0, text: str = "", hardware_id: str = ""
) -> Fields:
    """``diagnostic_msgs/DiagnosticArray`` with one status.

    Args:
        name: of what is well or not.
        values: what is measured, by name.
        seconds: simulation time.
        level: 0 OK, 1 warning, 2 error, 3 stale.
        text: one line about it.
        hardware_id: of the device.

    Raises:
        ValueError: if the level is unknown.
    """
    if level not in range(4):
        raise ValueError(f"level: expected 0 to 3, got {level}")
    status = {
        "level": bytes([level]),
        "name": name,
        "message": text,
        "hardware_id": hardware_id,
        "values": [{"key": key, "value": str(value)} for key, value in values.items()],
    }
    return {"header": header(seconds, ""), "status": [status]}
