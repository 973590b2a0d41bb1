"""Benchmarks: one module and one function each, returning plain marks."""
