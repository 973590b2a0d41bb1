"""Evaluation of learned worlds: fixed walks, metrics and protocols (``docs/protocol.md``)."""
