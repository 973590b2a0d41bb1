"""Furnished apartments as a reference simulator."""
