"""Policies learned with stable-baselines3. Needs the extra ``learn``."""

import json
import zipfile
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium import spaces

_OF_PPO = {"clip_range", "n_epochs", "policy_class"}  # entries that distinguish PPO from other algorithms


class LearnedPolicy:
    """Runs a PPO policy of stable-baselines3 deterministically.

    Args:
        path: of the zip that the policy's ``save`` wrote.
        trust: whether to load the file. It contains pickled Python objects, and unpickling can run any code that the
            author of the file put there.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if stable-baselines3 is not installed.
        ValueError: if the file is not trusted, or is not a PPO zip. Nothing is unpickled then.
    """

    def __init__(self, path: str | Path, trust: bool):
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"policy: expected the path of a stable-baselines3 zip, got {path}, not a file")
        if trust is not True:
            raise ValueError(
                f"policy: {path} is a stable-baselines3 zip, which contains pickled Python objects: loading it can "
                "run any code that its author put there. If you trust its source, add trust_policy=true"
            )
        if not _OF_PPO <= _entries(path):
            raise ValueError(f"policy: expected a zip that PPO of stable-baselines3 saved, got {path}")
        from mirage_sim.envs.sb3 import PPO

        self._model: Any = PPO.load(path, device="cpu")

    @property
    def observation(self) -> str:
        """Return the observation mode of the training: ``"rgb"`` or ``"dict"``; see the environment."""
        return "dict" if isinstance(self._model.observation_space, spaces.Dict) else "rgb"

    @property
    def observation_space(self) -> gymnasium.Space:
        """Return the observation space of the training; images may be channels-first."""
        return self._model.observation_space

    @property
    def action_space(self) -> gymnasium.Space:
        """Return the action space of the training."""
        return self._model.action_space

    def check(self, env: gymnasium.Env) -> None:
        """Check that the policy fits an environment.

        Raises:
            ValueError: if its action or observation space differs.
        """
        model = self._model
        if model.action_space != env.action_space:
            raise ValueError(
                f"env.action_mode: expected one with the policy's action space, {model.action_space}, "
                f"got {env.action_space}"
            )
        offered, wanted = _spaces(env.observation_space), _spaces(model.observation_space)
        for name, space in wanted.items():
            if name not in offered or offered[name].shape not in (space.shape, _channels_last(space.shape)):
                have = offered[name].shape if name in offered else "no such entry"
                raise ValueError(f"policy: expected observations{name} of shape {space.shape}, got {have}")

    def __call__(self, observation: Any) -> Any:
        """See :class:`~mirage_sim.agents.policies.Policy`; takes observations of the training's mode."""
        if isinstance(observation, dict):
            observation = {name: observation[name] for name in self._model.observation_space.spaces}
        action, _ = self._model.predict(observation, deterministic=True)
        return action


def _entries(path: Path) -> set[str]:
    """Return the names of the algorithm's entries in the file, without unpickling."""
    try:
        with zipfile.ZipFile(path) as archive:
            return set(json.loads(archive.read("data")))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"policy: expected a zip that stable-baselines3 saved, got {path} ({error})") from error


def _spaces(space: gymnasium.Space) -> dict[str, gymnasium.Space]:
    return {f".{key}": inner for key, inner in space.items()} if isinstance(space, spaces.Dict) else {"": space}


def _channels_last(shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Return a channels-first image shape as channels-last; policies transpose images themselves."""
    return (*shape[1:], shape[0]) if shape is not None and len(shape) == 3 else shape
