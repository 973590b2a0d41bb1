"""Benchmarks of speed, size and learning, run by ``mirage bench NAME``. They are not part of the wheel."""
