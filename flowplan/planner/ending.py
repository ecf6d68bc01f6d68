"""Decision whether the object is let go at the end of a plan."""

from __future__ import annotations

from flowplan.motion import SceneMotion
from flowplan.planner.options import PlanOptions
from flowplan.planner.records import Ending
from flowplan.scene import Scene
from flowplan.statics import rest_at_end


def ending_of(
    scene: Scene, motion: SceneMotion, target: int, deformable: bool, options: PlanOptions
) -> tuple[Ending, tuple[str, ...]]:
    """The ending of every plan for a motion, and the guesses that it rests on.

    Args:
        scene: The world at t = 0.
        motion: Its motion.
        target: Index of the object that is held or pushed.
        deformable: True if that is a cloth.
        options: `release` and `rest` are used.
    """
    rest = rest_at_end(scene, motion, target, deformable=deformable, options=options.rest)
    released = options.release == "always" or (options.release == "auto" and rest.rests)
    reason, assumptions = rest.reason, rest.assumptions
    if options.release != "auto":
        reason = f"release={options.release!r}; {reason}"
        # The statics decide nothing.
        assumptions = ()
    if released and not rest.rests:
        assumptions = (f"it is right to let go although {rest.reason} (release='always')",)
    ending = Ending(released, reason, rest.rests, rest.drop, rest.margin, rest.load)
    return ending, assumptions
