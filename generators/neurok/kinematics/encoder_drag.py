"""Which part goes with the handles: a drag (eq. 43) whose handles move as one body, answered by the encoder.

A drag's cost says nothing of the points between handles and the rest of the object, and descending it in a reduced
space moves whatever gives way first. The deformation encoder knows better, if asked with a whole motion: "these points
go along, those stay". So we alternate, as expectation-maximisation does:

- given who goes along, encode (those points by the handles' rigid motion, the others still) and decode again;
- a point goes along if what was decoded for it is nearer to the rigid motion than to standing still;

from several first beliefs (all within some distance of the handles), and keep the answer in which decoder and belief
agree best, the handles arrive, and little moves. The whole way is then encoded with that belief. No derivative is taken;
an answer costs a hundredth of a Gauss-Newton search.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowplan.geometry import fit_rigid
from flowplan.utils.checks import FloatArray
from generators.data.pose_pairs import PosePairs, quat_from_matrix
from generators.neurok.latent_space.space import LatentSpace


@dataclass(frozen=True)
class LeadOptions:
    """How the part that goes along is found; lengths are in the normalised frame."""

    reaches: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8)
    """First beliefs: what is within these distances of a handle goes along."""
    rounds: int = 6
    """Times a belief is put to the network, at most."""
    parsimony: float = 0.2
    """What a belief pays for the share of points that goes along, beside the mean distances it is off by."""
    tolerance: float = 0.3
    """Share of their way that the handles may be off at the end for the answer to count."""


@torch.no_grad()
def lead(
    space: LatentSpace,
    handles: Tensor,
    paths: Tensor,
    body: Tensor,
    options: LeadOptions = LeadOptions(),
) -> Tensor | None:
    """Latents (T, K, C) of an object whose handles are led along a rigid motion; None where they do not arrive.

    Args:
        space: the object's states.
        handles: (H, 3) points of the object at rest, not all on a line, normalised frame.
        paths: (T, H, 3) where one rigid motion a frame takes them; the first frame is where they are.
        body: (M, 3) points all over the object.
        options: see LeadOptions.
    """
    whole = space.unreduced()
    far = torch.cdist(body, handles).amin(1)
    final = _motion(handles, paths[-1])
    beliefs = [
        _converged(whole, body, far < reach, final, options.rounds) for reach in options.reaches
    ]

    def fault(belief: Tensor) -> float:
        z = _encode(whole, body, belief, [final])
        q = whole.coordinates(z)
        off = (whole.positions(q, body)[0] - _asked(body, belief, final)).norm(dim=-1).mean()
        missed = (whole.positions(q, handles)[0] - paths[-1]).norm(dim=-1).mean()
        return float(off + missed + options.parsimony * belief.float().mean())

    best = min(beliefs, key=fault)
    latents = _encode(whole, body, best, [_motion(handles, at) for at in paths])
    # The first frame is the object as it is, whose latent the space has found more exactly than the encoder does.
    fade = torch.linspace(1, 0, len(paths)).to(latents)[:, None, None]
    latents = latents - fade * (latents[:1] - space.z_rest)
    missed = (whole.positions(whole.coordinates(latents[-1:]), handles)[0] - paths[-1]).norm()
    return latents if missed <= options.tolerance * (paths[-1] - handles).norm() else None


Motion = tuple[Tensor, Tensor, Tensor]
"""Rotation (3, 3), translation (3,), and the rotation's quaternion (4,), w first."""


def _motion(handles: Tensor, at: Tensor) -> Motion:
    X: FloatArray = fit_rigid(handles.cpu().double().numpy(), at.cpu().double().numpy())
    R, t = (
        torch.as_tensor(a, dtype=handles.dtype, device=handles.device)
        for a in (X[:3, :3], X[:3, 3])
    )
    return R, t, quat_from_matrix(R)


def _asked(body: Tensor, goes: Tensor, motion: Motion) -> Tensor:
    R, t, _ = motion
    return torch.where(goes[:, None], body @ R.T + t, body)


def _encode(space: LatentSpace, body: Tensor, goes: Tensor, motions: list[Motion]) -> Tensor:
    still = torch.eye(4).to(body)[0]
    asked = torch.stack([_asked(body, goes, motion) for motion in motions])
    quat = torch.stack([torch.where(goes[:, None], quat, still) for _, _, quat in motions])
    return space.posterior(PosePairs(body.expand(len(motions), -1, -1), asked, quat))


def _converged(
    space: LatentSpace, body: Tensor, goes: Tensor, motion: Motion, rounds: int
) -> Tensor:
    R, t, _ = motion
    along = body @ R.T + t
    for _ in range(rounds):
        x = space.positions(space.coordinates(_encode(space, body, goes, [motion])), body)[0]
        decided = (x - along).norm(dim=1) < (x - body).norm(dim=1)
        if bool((decided == goes).all()):
            break
        goes = decided
    return goes
