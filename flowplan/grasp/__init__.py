"""Where a gripper may touch an object, and which touch suits the motion that is asked."""

from flowplan.grasp.pinch import PinchOptions, propose_pinches
from flowplan.grasp.proposal import Proposal, merge
from flowplan.grasp.propose import GraspOptions, propose_grasps
from flowplan.grasp.push import PushOptions, propose_pushes
from flowplan.grasp.rank import ContactReport, RankOptions, rank_with_flow
from flowplan.grasp.records import ContactCandidates, ContactKind

__all__ = [
    "ContactCandidates",
    "ContactKind",
    "ContactReport",
    "GraspOptions",
    "PinchOptions",
    "Proposal",
    "PushOptions",
    "RankOptions",
    "merge",
    "propose_grasps",
    "propose_pinches",
    "propose_pushes",
    "rank_with_flow",
]
