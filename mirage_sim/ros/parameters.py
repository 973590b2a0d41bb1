"""The settings as ROS parameters: declared with descriptions and ranges, checked and followed while the node runs."""

from collections.abc import Callable, Sequence
from dataclasses import Field, fields, replace
from typing import Any

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    ParameterType,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from mirage_sim.ros.settings import Settings

_TYPES = {
    bool: ParameterType.PARAMETER_BOOL,
    int: ParameterType.PARAMETER_INTEGER,
    float: ParameterType.PARAMETER_DOUBLE,
    str: ParameterType.PARAMETER_STRING,
}


def declare(node: Node, changed: Callable[[Settings], None]) -> Settings:
    """Declare all settings as parameters of a node.

    Args:
        node: whose.
        changed: called with the new settings whenever some of them were set, in the thread that set them.

    Returns:
        The settings as given when the node was started.

    Raises:
        rclpy.exceptions.ParameterException: for a value of a wrong type or out of range.
        ValueError: for another unusable value.
    """
    names = [setting.name for setting in fields(Settings)]
    given = {
        setting.name: node.declare_parameter(setting.name, setting.default, _descriptor(setting)).value
        for setting in fields(Settings)
    }
    settings = Settings(**given)

    def ours(parameters: Sequence[Parameter]) -> dict[str, Any]:
        return {parameter.name: parameter.value for parameter in parameters if parameter.name in names}

    def check(parameters: list[Parameter]) -> SetParametersResult:
        try:
            replace(settings, **ours(parameters))
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def follow(parameters: list[Parameter]) -> None:
        nonlocal settings
        if news := ours(parameters):
            settings = replace(settings, **news)
            changed(settings)

    node.add_on_set_parameters_callback(check)
    node.add_post_set_parameters_callback(follow)
    return settings


def _descriptor(setting: Field[Any]) -> ParameterDescriptor:
    kind, about = type(setting.default), setting.metadata
    descriptor = ParameterDescriptor(
        name=setting.name,
        type=_TYPES[kind],
        description=about["description"],
        read_only=about["read_only"],
        # whole numbers may be given for these; the settings check the rest
        dynamic_typing=kind is float,
    )
    if about["choices"]:
        descriptor.additional_constraints = "one of: " + ", ".join(about["choices"])
    if about["low"] is not None and kind is float:
        descriptor.floating_point_range = [FloatingPointRange(from_value=about["low"], to_value=about["high"])]
    elif about["low"] is not None:
        descriptor.integer_range = [IntegerRange(from_value=about["low"], to_value=about["high"])]
    return descriptor
