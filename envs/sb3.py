"""Adapter for stable-baselines3, from the optional dependencies ``mirage_sim[learn]``.

All imports of stable-baselines3 go through this module, which raises an error with installation instructions.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor, nn

try:
    from stable_baselines3 import PPO
    from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise ImportError("stable-baselines3 is not installed: pip install 'mirage_sim[learn]'") from error

__all__ = ["PPO", "SB3VecEnv", "SmallCNN", "unbatch_infos"]


class SB3VecEnv(VecEnv):
    """Adapts a Gymnasium vector environment to the interface of stable-baselines3.

        envs = gymnasium.make_vec("MirageWorld-v0", num_envs=8, autoreset_mode="SameStep", max_episode_steps=50)
        PPO("CnnPolicy", SB3VecEnv(envs)).learn(10_000)

    Args:
        envs: a vector environment with ``autoreset_mode="SameStep"``.

    Raises:
        ValueError: if the autoreset mode is another one.
    """

    def __init__(self, envs: SyncVectorEnv):
        mode = envs.metadata.get("autoreset_mode")
        if mode is not AutoresetMode.SAME_STEP:
            raise ValueError(f"envs: expected autoreset_mode 'SameStep', got {getattr(mode, 'value', mode)!r}")
        self.envs = envs
        self._actions: Any = None
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> Any:
        """Start an episode in every environment, with the seeds passed to ``seed()``."""
        if any(self._options):
            raise ValueError(f"options: expected none, got {self._options}; autoreset would not repeat them")
        observations, infos = self.envs.reset(seed=list(self._seeds))
        self.reset_infos = unbatch_infos(infos, self.num_envs)
        self._reset_seeds()
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Store the actions for :meth:`step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Step all environments. Finished episodes restart; their last observation is in ``info``."""
        observations, rewards, terminations, truncations, batched = self.envs.step(self._actions)
        infos = unbatch_infos(batched, self.num_envs)
        for i, info in enumerate(infos):
            if "final_info" in info:
                last = info.pop("final_info") | {"terminal_observation": info.pop("final_obs")}
                self.reset_infos[i], infos[i] = info, last
            infos[i]["TimeLimit.truncated"] = bool(truncations[i] and not terminations[i])
        return observations, rewards.astype(np.float32), terminations | truncations, infos

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of each environment."""
        values = self.envs.call(attr_name)
        return [values[i] for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of each environment."""
        for i in self._get_indices(indices):
            self.envs.envs[i].set_wrapper_attr(attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of each environment."""
        methods = [self.envs.envs[i].get_wrapper_attr(method_name) for i in self._get_indices(indices)]
        return [method(*method_args, **method_kwargs) for method in methods]

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: Any = None) -> list[bool]:
        """Return whether each environment has such a wrapper."""
        from stable_baselines3.common.env_util import is_wrapped

        return [is_wrapped(self.envs.envs[i], wrapper_class) for i in self._get_indices(indices)]

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Return the frame of each environment, for ``render``."""
        return [np.asarray(frame) for frame in self.envs.render() or ()]


class SmallCNN(BaseFeaturesExtractor):
    """A small feature extractor for ``CnnPolicy``, for frames of at least 32 x 32 pixels.

    Args:
        observation_space: of frames, channels first.
        features_dim: number of features.
    """

    def __init__(self, observation_space: spaces.Box, features_dim: int = 128):
        super().__init__(observation_space, features_dim)
        self.layers = nn.Sequential(
            nn.AvgPool2d(2),
            nn.Conv2d(observation_space.shape[0], 32, 5, stride=2),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.LazyLinear(features_dim),
            nn.ReLU(),
        )
        self.layers(torch.zeros(1, *observation_space.shape))  # initialises the lazy layer

    def forward(self, observations: Tensor) -> Tensor:
        """Map frames ``[B, 3, H, W]`` to features ``[B, features_dim]``."""
        return self.layers(observations)


def unbatch_infos(infos: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Split the infos of a vector environment into one dict per environment.

    Args:
        infos: per key an array, and under the key with a leading underscore its mask; may be nested.
        count: number of environments.
    """
    each: list[dict[str, Any]] = [{} for _ in range(count)]
    for key, values in infos.items():
        if key.startswith("_"):
            continue
        items = unbatch_infos(values, count) if isinstance(values, dict) else values
        for i in np.flatnonzero(infos[f"_{key}"]):
            each[i][key] = items[i]
    return each
