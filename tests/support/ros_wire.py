"""Messages as another process receives them."""

from typing import Any

from rclpy.serialization import deserialize_message, serialize_message

from mirage_sim.ros.conversions import Fields, message


def sent(cls: Any, fields: Fields) -> Any:
    """Return the message after serialisation, which fails for values of a wrong type."""
    return deserialize_message(serialize_message(message(cls, fields)), cls)
