"""Policies learned with stable-baselines3. Needs the extra ``learn``."""

import json
import zipfile
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium import spaces

_OF_PPO = {"clip_range", "n_epochs", "policy_class"}  # entries of the file that tell PPO from other algorithms


class LearnedPolicy:
    """Acts as a PPO of stable-baselines3 learned to, without chance.

    Args:
        path: of the zip that its ``save`` wrote.
        trust: whether the file may be loaded. It holds pickled Python objects, and unpickling runs whatever code the
            one who made the file put there.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if stable-baselines3 is not installed.
        ValueError: if it is not trusted or no such file; nothing of it has been unpickled then.
    """

    def __init__(self, path: str | Path, trust: bool):
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"policy: expected the path of a stable-baselines3 zip, got {path}, not a file")
        if trust is not True:
            raise ValueError(
                f"policy: {path} is a stable-baselines3 zip, which holds pickled Python objects: loading it runs "
                "whatever code its maker put there. If you trust where it comes from, add trust_policy=true"
            )
        if not _OF_PPO <= _entries(path):
            raise ValueError(f"policy: expected a zip that PPO of stable-baselines3 saved, got {path}")
        from mirage_sim.envs.sb3 import PPO

        self._model: Any = PPO.load(path, device="cpu")

    @property
    def observation(self) -> str:
        """What it learned from: ``"rgb"`` frames or the ``"dict"``; see the environment."""
        return "dict" if isinstance(self._model.observation_space, spaces.Dict) else "rgb"

    @property
    def observation_space(self) -> gymnasium.Space:
        """What it learned from, in detail; pictures may have their channels first."""
        return self._model.observation_space

    @property
    def action_space(self) -> gymnasium.Space:
        """What it answers."""
        return self._model.action_space

    def check(self, env: gymnasium.Env) -> None:
        """Check that it can act in an environment.

        Raises:
            ValueError: if its actions or observations are others.
        """
        model = self._model
        if model.action_space != env.action_space:
            raise ValueError(
                f"env.action_mode: expected one with the actions that the policy learned, {model.action_space}, "
                f"got {env.action_space}"
            )
        here, wanted = _entries_of(env.observation_space), _entries_of(model.observation_space)
        for name, space in wanted.items():
            if name not in here or here[name].shape not in (space.shape, _last(space.shape)):
                have = here[name].shape if name in here else "no such entry"
                raise ValueError(f"policy: expected observations{name} of shape {space.shape}, got {have}")

    def __call__(self, observation: Any) -> Any:
        """See :class:`~mirage_sim.agents.policies.Policy`; takes what it learned from."""
        if isinstance(observation, dict):
            observation = {name: observation[name] for name in self._model.observation_space.spaces}
        action, _ = self._model.predict(observation, deterministic=True)
        return action


def _entries(path: Path) -> set[str]:
    """Names of what the file holds of the algorithm; nothing is unpickled."""
    try:
        with zipfile.ZipFile(path) as archive:
            return set(json.loads(archive.read("data")))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"policy: expected a zip that stable-baselines3 saved, got {path} ({error})") from error


def _entries_of(space: gymnasium.Space) -> dict[str, gymnasium.Space]:
    return {f".{key}": inner for key, inner in space.items()} if isinstance(space, spaces.Dict) else {"": space}


def _last(shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """The shape of a picture whose channels come first, with its channels last: policies turn pictures themselves."""
    return (*shape[1:], shape[0]) if shape is not None and len(shape) == 3 else shape
