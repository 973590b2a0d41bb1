"""What several tests use: toy worlds, recordings, reference implementations and ROS peers."""
