"""One-off converters that made the files in robot_configs/ and sim_envs/assets/."""
