"""Training: one loop, and a loss per stage."""

from mirage_sim.training.train import train

__all__ = ["train"]
