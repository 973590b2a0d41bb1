"""Configuration to objects: the only place where hydra composes and where ``_target_`` becomes a constructor.

Everything can also be built without this module, by calling the constructors.
"""

import importlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from mirage_sim.world import WorldModel

CONFIGS = Path(__file__).parent / "configs"


def compose(name: str, overrides: Sequence[str] = (), texts: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Compose a configuration of this package; works inside a hydra application of the caller, too.

    Args:
        name: a file in ``configs/`` without its suffix, such as ``"rollout"``.
        overrides: hydra's override syntax: ``"steps=50"``, ``"memory=rgb"``, ``"world.sampler.steps=4"``.
        texts: settings that are text, by their names; taken as they are, whatever is in them, after ``overrides``.

    Returns:
        A plain dict, every interpolation resolved.

    Raises:
        ValueError: in one line, naming what is unknown and what there is to choose from.
    """
    choices = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    if name not in choices:
        raise ValueError(f"config: expected one of {choices}, got {name!r}")
    if isinstance(overrides, str) or not all(isinstance(override, str) for override in overrides):
        raise ValueError(f"overrides: expected a list of strings, got {overrides!r}")
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf.errors import OmegaConfBaseException

    try:
        return _compose(name, overrides, texts or {})
    except MissingConfigException as error:
        raise ValueError(_missing_option(error)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(_explain(error, name)) from error


def _compose(name: str, overrides: Sequence[str], texts: Mapping[str, str]) -> dict[str, Any]:
    import hydra
    from omegaconf import OmegaConf

    with _own_hydra(), hydra.initialize_config_dir(str(CONFIGS.resolve()), job_name="mirage_sim", version_base="1.3"):
        config = hydra.compose(name, overrides=list(overrides))
        for key, text in texts.items():  # before interpolations are resolved, of which some point here
            OmegaConf.update(config, key, re.sub(r"(\\*)\$\{", r"\1\1\\${", text))
        return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, throw_on_missing=True))


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Put the caller's global hydra aside, and back afterwards: the very same object, not a copy."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.singleton import Singleton
    from hydra.version import VersionBase

    kinds = (GlobalHydra, VersionBase)
    instances = cast(dict[Any, Any], Singleton._instances)
    theirs = {kind: instances.pop(kind) for kind in kinds if kind in instances}
    try:
        yield
    finally:
        for kind in kinds:
            instances.pop(kind, None)
        instances.update(theirs)


def _missing_option(error: Any) -> str:
    wanted = Path(str(error.missing_cfg_file))
    if error.options:
        return f"{wanted.parent}: expected one of {sorted(error.options)}, got {wanted.name!r}"
    return f"config: expected a group among {_groups()}, got {str(wanted.parent)!r}"


def _groups() -> list[str]:
    return sorted(path.name for path in CONFIGS.iterdir() if path.is_dir())


def _explain(error: Exception, name: str) -> str:
    """One line for what hydra says in several, with the keys that do exist."""
    if missing := re.search(r"Missing mandatory value: (\S+)", str(error)):
        name, full = missing.group(1), str(getattr(error, "full_key", ""))
        return f"{full if full.endswith('.' + name) else name}: expected a value, got none"
    cause = error.__cause__ or error
    key = getattr(cause, "full_key", None)
    if not key:
        found = re.search(r"Could not override '([^']+)'", str(error))
        key = found.group(1) if found else None
    if key:
        node: Any = _compose(name, (), {})
        *parents, last = str(key).split(".")
        path: list[str] = []
        for parent in parents:
            if not isinstance(node, dict) or parent not in node:
                last = parent
                break
            node = node[parent]
            path.append(parent)
        if isinstance(node, dict) and last not in node:
            return f"{'.'.join([*path, last])}: expected one of {sorted(node)}, got the unknown key {last!r}"
    return "config: " + " ".join(str(error).split())


def instantiate(node: Any, allow: Sequence[str] = ("mirage_sim.",)) -> Any:
    """Build what a configuration describes.

    A mapping with ``_target_`` becomes a call of that class or function with the other entries as keyword arguments,
    inner nodes first; lists become tuples. Equal nodes within one call become one object: that is how a memory that
    needs the world's codec (``codec: ${world.codec}``) shares it.

    Args:
        node: a plain config (dict, list or value), see :func:`compose`.
        allow: prefixes that a ``_target_`` may have. The object found must also be *defined* below one of them, so
            that a config cannot reach other modules through ours.

    Raises:
        ValueError: for a ``_target_`` outside the allowed prefixes (before anything is imported), for one that does not
            exist, and for arguments that it does not take.
    """
    for target in _targets(node):
        if not isinstance(target, str) or not target.startswith(tuple(allow)):
            raise ValueError(f"_target_: expected a name below {list(allow)}, got {target!r}")
    from mirage_sim.ambient import own_torch

    with own_torch():
        return _instantiate(node, tuple(allow), {})


def _targets(node: Any) -> Iterator[Any]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from _targets(value)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _targets(value)


def _instantiate(node: Any, allow: tuple[str, ...], built: dict[str, Any]) -> Any:
    if isinstance(node, (list, tuple)):
        return tuple(_instantiate(value, allow, built) for value in node)
    if not isinstance(node, Mapping):
        return node
    if "_target_" not in node:
        return {key: _instantiate(value, allow, built) for key, value in node.items()}
    identity = json.dumps(node, sort_keys=True, default=str)
    if identity not in built:
        target = _locate(node["_target_"], allow)
        arguments = {key: _instantiate(value, allow, built) for key, value in node.items() if key != "_target_"}
        _check_arguments(node["_target_"], target, arguments)
        built[identity] = target(**arguments)
    return built[identity]


def _locate(name: str, allow: tuple[str, ...]) -> Any:
    module_name, _, attribute = name.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise ValueError(f"_target_: {name!r}: there is no module {error.name!r}") from error
        raise
    found = getattr(module, attribute, None)
    home = getattr(found, "__module__", None) or ""
    # this module would instantiate what its arguments say, with prefixes of their choice
    if not callable(found) or not f"{home}.".startswith(allow) or home == __name__:
        raise ValueError(f"_target_: expected a class or function defined below {list(allow)}, got {name!r}")
    return found


def _check_arguments(name: str, target: Any, arguments: Mapping[str, Any]) -> None:
    signature = inspect.signature(target)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise ValueError(f"{name}: {error}; it takes {list(signature.parameters)}") from error


def build_world_model(world: str = "mini", overrides: Sequence[str] = ()) -> "WorldModel":
    """A world model by name, such as ``build_world_model("mini", ["memory=rgb", "world.sampler.steps=4"])``.

    Args:
        world: a file in ``configs/world``.
        overrides: hydra overrides of ``configs/world.yaml``.

    Raises:
        ValueError: for unknown worlds, keys and options.
        FileNotFoundError: if weights are missing.
    """
    config = compose("world", [f"world={world}", *overrides])
    return cast("WorldModel", instantiate(config["world"]))
