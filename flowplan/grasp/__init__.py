"""Candidate contacts between gripper and object, and their ranking with the requested motion."""

from flowplan.grasp.candidates import ContactCandidates, ContactKind, Proposal, merge
from flowplan.grasp.pinch import PinchOptions, propose_pinches
from flowplan.grasp.propose import GraspOptions, propose_grasps
from flowplan.grasp.push import PushOptions, propose_pushes
from flowplan.grasp.rank import ContactReport, RankOptions, rank_with_flow

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
