"""The ROS 2 side: the nodes `mirage_world` and `mirage_policy`, message conversions, and bags of roll-outs."""
