"""flowplan: from dense object flow to certified robot motion.

    scan -> Scene -> generator -> SceneMotion -> ObjectFlow
         -> contacts -> Attachment -> Trajectory -> Rollout

Every arrow is a function and every noun a frozen record of numpy arrays. The names below cover
everyday use; the modules behind them hold the rest. Each name is imported on first access (PEP
562), so `import flowplan` itself loads neither numpy nor anything heavier:

>>> import flowplan as fp
>>> fp.pose(translation=[0.4, 0.0, 0.1]).shape
(4, 4)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowplan.geometry import pose as pose
    from flowplan.io.npz import load as load
    from flowplan.io.npz import save as save
    from flowplan.laws import Bend as Bend
    from flowplan.laws import Fold as Fold
    from flowplan.laws import Hinge as Hinge
    from flowplan.laws import Rigid as Rigid
    from flowplan.laws import Slide as Slide
    from flowplan.motion import ObjectFlow as ObjectFlow
    from flowplan.motion import SceneMotion as SceneMotion
    from flowplan.moves import move_by as move_by
    from flowplan.moves import place_on as place_on
    from flowplan.moves import turn as turn
    from flowplan.planner import NoPlan as NoPlan
    from flowplan.planner import Plan as Plan
    from flowplan.planner import PlanOptions as PlanOptions
    from flowplan.planner import plan as plan
    from flowplan.report import feasibility as feasibility
    from flowplan.robot import Robot as Robot
    from flowplan.robot import load_robot as load_robot
    from flowplan.scan import load_mesh as load_mesh
    from flowplan.scan import load_scene as load_scene
    from flowplan.scene import Action as Action
    from flowplan.scene import Observation as Observation
    from flowplan.scene import Prompt as Prompt
    from flowplan.scene import Scene as Scene
    from flowplan.scene import SceneObject as SceneObject
    from flowplan.trajectory import Trajectory as Trajectory

__version__ = "0.1.0"

_MODULES = {
    "Action": "flowplan.scene",
    "Bend": "flowplan.laws",
    "Fold": "flowplan.laws",
    "Hinge": "flowplan.laws",
    "NoPlan": "flowplan.planner",
    "ObjectFlow": "flowplan.motion",
    "Observation": "flowplan.scene",
    "Plan": "flowplan.planner",
    "PlanOptions": "flowplan.planner",
    "Prompt": "flowplan.scene",
    "Rigid": "flowplan.laws",
    "Robot": "flowplan.robot",
    "Scene": "flowplan.scene",
    "SceneMotion": "flowplan.motion",
    "SceneObject": "flowplan.scene",
    "Slide": "flowplan.laws",
    "Trajectory": "flowplan.trajectory",
    "feasibility": "flowplan.report",
    "load": "flowplan.io.npz",
    "load_mesh": "flowplan.scan",
    "load_robot": "flowplan.robot",
    "load_scene": "flowplan.scan",
    "move_by": "flowplan.moves",
    "place_on": "flowplan.moves",
    "plan": "flowplan.planner",
    "pose": "flowplan.geometry",
    "save": "flowplan.io.npz",
    "turn": "flowplan.moves",
}
"""Module of each public name."""

__all__ = [
    "Action",
    "Bend",
    "Fold",
    "Hinge",
    "NoPlan",
    "ObjectFlow",
    "Observation",
    "Plan",
    "PlanOptions",
    "Prompt",
    "Rigid",
    "Robot",
    "Scene",
    "SceneMotion",
    "SceneObject",
    "Slide",
    "Trajectory",
    "__version__",
    "feasibility",
    "load",
    "load_mesh",
    "load_robot",
    "load_scene",
    "move_by",
    "place_on",
    "plan",
    "pose",
    "save",
    "turn",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first access, and keep it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
