"""PyBullet worlds, cameras, tasks and simulated execution."""
