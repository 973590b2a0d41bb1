"""Recorded walks: their format, the ground-truth twin they come from, and the data set made of them."""
