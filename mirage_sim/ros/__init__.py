"""The ROS 2 side: what a world looks like as messages, a node that drives one, and bags of roll-outs."""
