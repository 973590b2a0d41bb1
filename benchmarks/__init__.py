"""Measurements of speed and scale that run from a checkout; `mirage bench` and `make soak` start them."""
