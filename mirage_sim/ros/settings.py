"""What can be set about the node: one table, with defaults, descriptions and ranges, that needs no ROS."""

import math
from dataclasses import Field, dataclass, field, fields
from typing import Any, get_args

from mirage_sim.envs.collisions import CollisionMode

MODES = ("realtime", "lockstep")
_LARGEST = 2**31 - 1


def _setting(
    default: Any,
    description: str,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    read_only: bool = False,
) -> Any:
    about = {"description": description, "low": low, "high": high, "choices": choices, "read_only": read_only}
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class Settings:
    """All parameters of the node, by the names that ROS sees.

    The metadata of each field holds ``description``, ``low`` and ``high`` (both inclusive, None without a bound),
    ``choices`` (empty if any) and ``read_only`` (fixed once the node runs).

    Raises:
        ValueError: naming the setting, what was expected and what came.
    """

    world: str = _setting("mini", "world to walk in: a configuration of mirage_sim", read_only=True)
    device: str = _setting("cpu", "where the networks run, as torch names it: cpu, cuda, cuda:0, ...", read_only=True)
    mode: str = _setting(
        "realtime",
        "realtime: steps by itself; lockstep: advances by ~/step, or by one step per received command",
        choices=MODES,
        read_only=True,
    )
    frame_rate: float = _setting(10.0, "pictures per simulated second", 1.0, 100.0)
    real_time_factor: float = _setting(
        1.0, "simulated seconds per second of wall clock (realtime mode); 0: as fast as it goes", 0.0, 100.0
    )
    image_width: int = _setting(0, "width of all pictures in pixels; 0: the world's own, or in proportion", 0, 8192)
    image_height: int = _setting(0, "height of all pictures in pixels; 0: the world's own, or in proportion", 0, 8192)
    seed: int = _setting(0, "decides start picture and all that is invented, from the next reset on", 0, _LARGEST)
    start_image: str = _setting("", "picture to start from, from the next reset on; empty: a built-in one by the seed")
    collisions: str = _setting(
        "report", "what an obstacle does to a motion", choices=get_args(CollisionMode), read_only=True
    )
    scan_rays: int = _setting(360, "rays of the range scan; 0: no scan", 0, 3600, read_only=True)
    cmd_vel_timeout: float = _setting(
        0.5, "simulated seconds after which a velocity command stops counting; 0: never", 0.0, 3600.0
    )
    enable_stamped_cmd_vel: bool = _setting(False, "cmd_vel is TwistStamped instead of Twist", read_only=True)
    publish_clock: bool = _setting(True, "publish /clock", read_only=True)
    publish_tf: bool = _setting(True, "publish /tf and /tf_static, where tf2_msgs is installed", read_only=True)
    jpeg_quality: int = _setting(80, "of camera/image_raw/compressed", 1, 100)

    def __post_init__(self) -> None:
        for setting in fields(self):
            object.__setattr__(self, setting.name, _checked(setting, getattr(self, setting.name)))

    def output_size(self, native: tuple[int, int]) -> tuple[int, int]:
        """``(height, width)`` of the pictures to publish, for a world with pictures of the size ``native``."""
        height, width = self.image_height, self.image_width
        if not height and not width:
            return native
        return (
            height or max(round(width * native[0] / native[1]), 1),
            width or max(round(height * native[1] / native[0]), 1),
        )


def _checked(setting: Field[Any], value: Any) -> Any:
    """The value in the setting's type; whole numbers serve as floats."""
    kind, about = type(setting.default), setting.metadata
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"{setting.name}: expected a value of type {kind.__name__}, got {value!r}")
    if about["choices"] and value not in about["choices"]:
        raise ValueError(f"{setting.name}: expected one of {list(about['choices'])}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{setting.name}: expected a finite number, got {value!r}")
    low, high = about["low"], about["high"]
    if low is not None and not low <= value <= high:
        raise ValueError(f"{setting.name}: expected a value from {low} to {high}, got {value!r}")
    return value
