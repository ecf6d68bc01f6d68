"""PyBullet worlds, tasks and the evaluation of plans in them."""
