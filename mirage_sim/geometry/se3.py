"""Rigid transforms as 4x4 matrices, with exponential and logarithm of SE(3).

A transform named ``b_from_a`` maps coordinates in frame ``a`` to coordinates in frame ``b``. A twist is ``[..., 6]``:
translation (metres), then rotation vector (radians).
"""

import torch
from torch import Tensor


def invert(transform: Tensor) -> Tensor:
    """Invert rigid transforms ``[..., 4, 4]`` by transposing the rotation."""
    rotation_t = transform[..., :3, :3].transpose(-1, -2)
    out = torch.zeros_like(transform)
    out[..., :3, :3] = rotation_t
    out[..., :3, 3] = -(rotation_t @ transform[..., :3, 3:]).squeeze(-1)
    out[..., 3, 3] = 1.0
    return out


def is_rigid(transform: Tensor, tolerance: float = 1e-3) -> bool:
    """Return whether all matrices ``[..., 4, 4]`` are finite, orthonormal, right-handed and end in (0, 0, 0, 1)."""
    if not bool(torch.isfinite(transform).all()):
        return False
    rotation = transform[..., :3, :3].double()
    identity = torch.eye(3, dtype=torch.float64, device=transform.device)
    last_row = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=transform.dtype, device=transform.device)
    return bool(
        ((rotation @ rotation.transpose(-1, -2) - identity).abs() < tolerance).all()
        and (torch.linalg.det(rotation) > 0).all()
        and ((transform[..., 3, :] - last_row).abs() < tolerance).all()
    )


def _hat(vector: Tensor) -> Tensor:
    """Return skew-symmetric matrices ``[..., 3, 3]`` with ``hat(a) @ b = a x b``."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    rows = [zero, -z, y, z, zero, -x, -y, x, zero]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def _series_coefficients(angle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``sin(t)/t``, ``(1-cos t)/t^2`` and ``(t-sin t)/t^3``, from Taylor series near zero."""
    small = angle < 1e-2
    t = torch.where(small, torch.ones_like(angle), angle)
    t2 = angle * angle
    a = torch.where(small, 1 - t2 / 6 + t2 * t2 / 120, torch.sin(t) / t)
    b = torch.where(small, 0.5 - t2 / 24 + t2 * t2 / 720, (1 - torch.cos(t)) / t**2)
    c = torch.where(small, 1 / 6 - t2 / 120 + t2 * t2 / 5040, (t - torch.sin(t)) / t**3)
    return a, b, c


def se3_exp(twist: Tensor) -> Tensor:
    """Return the transform ``[..., 4, 4]`` of a twist ``[..., 6]`` (translation, rotation vector).

    Rodrigues' formula and the left Jacobian of SO(3); see Barfoot, *State Estimation for Robotics*, section 7.1.
    """
    omega = _hat(twist[..., 3:])
    angle = twist[..., 3:].norm(dim=-1)[..., None, None]
    a, b, c = _series_coefficients(angle)
    omega2 = omega @ omega
    identity = torch.eye(3, dtype=twist.dtype, device=twist.device)
    out = torch.zeros(*twist.shape[:-1], 4, 4, dtype=twist.dtype, device=twist.device)
    out[..., :3, :3] = identity + a * omega + b * omega2
    out[..., :3, 3] = ((identity + b * omega + c * omega2) @ twist[..., :3, None]).squeeze(-1)
    out[..., 3, 3] = 1.0
    return out


def se3_log(transform: Tensor) -> Tensor:
    """Return the twist ``[..., 6]`` of a transform ``[..., 4, 4]``: the inverse of :func:`se3_exp` for angles below pi.

    Near pi the axis comes from the symmetric part of the rotation and its sign from the antisymmetric part. At exactly
    pi both signs are correct.
    """
    rotation = transform[..., :3, :3]
    vee = torch.stack(
        [
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ],
        dim=-1,
    )
    trace = rotation.diagonal(dim1=-2, dim2=-1).sum(-1)
    angle = torch.atan2(vee.norm(dim=-1), trace - 1)[..., None]
    a, b, _ = _series_coefficients(angle)
    generic = vee / (2 * a)
    # (R + R^T) / 2 = cos(t) I + (1 - cos(t)) a a^T: every column of the second term is a multiple of the axis.
    cosine = ((trace - 1) / 2)[..., None, None]
    symmetric = (rotation + rotation.transpose(-1, -2)) / 2
    symmetric = symmetric - cosine * torch.eye(3, dtype=rotation.dtype, device=rotation.device)
    column = symmetric.norm(dim=-2).argmax(dim=-1)
    axis = torch.gather(symmetric, -1, column[..., None, None].expand(*column.shape, 3, 1)).squeeze(-1)
    axis = axis / axis.norm(dim=-1, keepdim=True)
    sign = torch.where((axis * vee).sum(-1, keepdim=True) < 0, -1.0, 1.0)
    rotation_vector = torch.where(angle > 3.0, sign * axis * angle, generic)

    # Inverse of the left Jacobian in closed form (Barfoot, section 7.1.5).
    omega = _hat(rotation_vector)
    t2 = (angle * angle)[..., None]
    last = torch.where(t2 < 1e-2, 1 / 12 + t2 / 720, (1 - a[..., None] / (2 * b[..., None])) / t2.clamp(min=1e-2))
    offset = transform[..., :3, 3:]
    turned = omega @ offset
    translation = (offset - turned / 2 + last * (omega @ turned)).squeeze(-1)
    return torch.cat([translation, rotation_vector], dim=-1)


def interpolate(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Interpolate between two poses at a constant twist.

    Args:
        start: pose ``[4, 4]`` at share 0.
        end: pose ``[4, 4]`` at share 1, returned exactly there.
        share: ``[N]`` in [0, 1].

    Returns:
        Poses ``[N, 4, 4]``.
    """
    twist = se3_log(invert(start) @ end)
    between = start @ se3_exp(share[:, None] * twist)
    return torch.where((share == 1)[:, None, None], end, between)
