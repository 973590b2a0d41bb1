"""Agents that walk through generated worlds, and the files that their episodes are saved to."""
