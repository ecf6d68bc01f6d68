"""Robot files (`panda.toml`, `ur5e.toml`), beside the URDFs and meshes that they name.

Optimizer, validator and simulator all read the same file, through `flowplan.robot.load_robot`.
"""
