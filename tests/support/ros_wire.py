"""Messages as another process gets them."""

from typing import Any

from rclpy.serialization import deserialize_message, serialize_message

from mirage_sim.ros.messages import Fields, message


def sent(cls: Any, fields: Fields) -> Any:
    """The message, through the wire format. What has a wrong type does not get there."""
    return deserialize_message(serialize_message(message(cls, fields)), cls)
