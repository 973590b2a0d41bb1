"""Training: one loop, and an objective per stage."""

from mirage_sim.training.train import train

__all__ = ["train"]
