"""The ids under which ``gymnasium.make`` finds the environments. Imports neither torch nor the environment itself."""

import gymnasium

WORLD_ID = "MirageWorld-v0"


def register_envs() -> None:
    """Register every environment of this package; calling it again changes nothing."""
    if WORLD_ID not in gymnasium.registry:
        gymnasium.register(
            id=WORLD_ID,
            entry_point="mirage_sim.envs.world_env:MirageWorldEnv",
            vector_entry_point="mirage_sim.envs.vector_env:MirageWorldVectorEnv",
        )
