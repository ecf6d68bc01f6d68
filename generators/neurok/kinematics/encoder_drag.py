"""Encoder drag: a drag (eq. 43) whose handles move as one body, answered by the encoder.

The cost of a drag is silent about the points between handles and the rest of the object, and
minimizing it in a reduced space moves whatever gives way first. The deformation encoder knows
better which part moves, if queried with a whole motion: "these points move along, those stay". So
two steps alternate, as in expectation maximization:

- given a belief (the points that move along), encode: those points by the handles' rigid motion,
  the others at rest; then decode;
- a point moves along if its decoded position is nearer to the rigid motion than to rest.

The search starts from several beliefs (all points within some distance of the handles) and keeps
the answer in which decoder and belief agree best, the handles arrive, and little moves. The whole
path is then encoded with that belief. No derivative is needed; an answer costs a hundredth of a
Gauss-Newton search.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowplan.geometry import fit_rigid
from flowplan.utils.checks import FloatArray
from generators.data.pose_pairs import PosePairs, quat_from_matrix
from generators.neurok.latent_space.space import LatentSpace
from generators.neurok.options import EncoderDragOptions

RigidMotion = tuple[Tensor, Tensor, Tensor]
"""Rotation (3, 3), translation (3,), and the rotation's quaternion (4,), w first."""


@torch.no_grad()
def encoder_drag(
    space: LatentSpace,
    handles: Tensor,
    paths: Tensor,
    body: Tensor,
    options: EncoderDragOptions = EncoderDragOptions(),
) -> Tensor | None:
    """Latents (T, K, C) of an object whose handles follow a rigid motion.

    Args:
        space: the object's states.
        handles: (H, 3) points of the object at rest, not collinear, normalized frame.
        paths: (T, H, 3) positions under one rigid motion per frame; `handles` in the first frame.
        body: (M, 3) points all over the object.
        options: see EncoderDragOptions.

    Returns:
        The latents, or None if the handles do not arrive.
    """
    whole = space.unreduced()
    final = _rigid_motion(handles, paths[-1])

    # Beliefs from several starts.
    distance = torch.cdist(body, handles).amin(1)  # (M,)
    beliefs = [
        _converged(whole, body, distance < reach, final, options.rounds)
        for reach in options.reaches
    ]

    def cost(belief: Tensor) -> float:
        q = whole.coordinates(_encode(whole, body, belief, [final]))
        error = (whole.positions(q, body)[0] - _believed(body, belief, final)).norm(dim=-1).mean()
        missed = (whole.positions(q, handles)[0] - paths[-1]).norm(dim=-1).mean()
        return float(error + missed + options.parsimony * belief.float().mean())

    # The whole path with the best of them.
    best = min(beliefs, key=cost)
    latents = _encode(whole, body, best, [_rigid_motion(handles, at) for at in paths])
    # The first frame is the object at rest, whose latent the space knows more exactly than the
    # encoder.
    fade = torch.linspace(1, 0, len(paths)).to(latents)[:, None, None]
    latents = latents - fade * (latents[:1] - space.z_rest)

    missed = (whole.positions(whole.coordinates(latents[-1:]), handles)[0] - paths[-1]).norm()
    travel = (paths[-1] - handles).norm()
    return latents if missed <= options.tolerance * travel else None


def _rigid_motion(handles: Tensor, at: Tensor) -> RigidMotion:
    """Least-squares rigid motion of handles (H, 3) to positions (H, 3)."""
    X: FloatArray = fit_rigid(handles.cpu().double().numpy(), at.cpu().double().numpy())
    R, t = (
        torch.as_tensor(a, dtype=handles.dtype, device=handles.device)
        for a in (X[:3, :3], X[:3, 3])
    )
    return R, t, quat_from_matrix(R)


def _believed(body: Tensor, along: Tensor, motion: RigidMotion) -> Tensor:
    """Positions (M, 3) of points of which `along` (M,) follow the motion and the others rest."""
    R, t, _ = motion
    return torch.where(along[:, None], body @ R.T + t, body)


def _encode(space: LatentSpace, body: Tensor, along: Tensor, motions: list[RigidMotion]) -> Tensor:
    """Latents (T, K, C) of the believed positions under each motion."""
    identity = torch.eye(4).to(body)[0]
    positions = torch.stack([_believed(body, along, motion) for motion in motions])
    quat = torch.stack([torch.where(along[:, None], q, identity) for _, _, q in motions])
    return space.posterior(PosePairs(body.expand(len(motions), -1, -1), positions, quat))


def _converged(
    space: LatentSpace, body: Tensor, along: Tensor, motion: RigidMotion, rounds: int
) -> Tensor:
    """Belief (M,) after alternating encoding and classification."""
    R, t, _ = motion
    carried = body @ R.T + t
    for _ in range(rounds):
        q = space.coordinates(_encode(space, body, along, [motion]))
        x = space.positions(q, body)[0]
        nearer = (x - carried).norm(dim=1) < (x - body).norm(dim=1)
        if bool((nearer == along).all()):
            break
        along = nearer
    return along
