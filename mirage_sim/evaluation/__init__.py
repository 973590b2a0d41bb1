"""How good a learned world is: fixed walks, metrics, and one module per protocol (``docs/protocol.md``)."""
