"""The loss of each training stage."""
