"""Agents: what walks through the worlds, and what is kept of its walks."""
