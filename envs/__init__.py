"""Gymnasium environments. Importing this registers nothing and loads no network; see :func:`register_envs`."""

from mirage_sim.envs.registration import register_envs

__all__ = ["register_envs"]
