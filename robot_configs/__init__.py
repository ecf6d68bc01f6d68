"""One readable file per robot (`panda.toml`, `ur5e.toml`), beside the URDF and the meshes that it names.

Optimizer, validator and simulator all read the same file, through `flowplan.robot.load_robot`.
"""
