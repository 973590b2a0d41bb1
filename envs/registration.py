"""Registration of the environments with Gymnasium, without importing them or torch."""

import gymnasium

WORLD_ID = "MirageWorld-v0"
REFERENCE_ID = "MirageReference-v0"


def register_envs() -> None:
    """Register all environments of this package. Repeated calls have no effect."""
    if WORLD_ID not in gymnasium.registry:
        gymnasium.register(
            id=WORLD_ID,
            entry_point="mirage_sim.envs.world_env:MirageWorldEnv",
            vector_entry_point="mirage_sim.envs.vector_env:MirageWorldVectorEnv",
        )
    if REFERENCE_ID not in gymnasium.registry:
        gymnasium.register(
            id=REFERENCE_ID,
            entry_point="mirage_sim.envs.reference_env:MirageReferenceEnv",
            vector_entry_point="mirage_sim.envs.reference_env:MirageReferenceVectorEnv",
        )
