"""A simulated robot that speaks ROS 2 as the real one does."""
