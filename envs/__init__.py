"""Gymnasium environments; :func:`register_envs` registers them."""

from mirage_sim.envs.registration import register_envs

__all__ = ["register_envs"]
