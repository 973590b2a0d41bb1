"""From names and overrides to settings, and from settings to objects: the only module that uses hydra.

Everything can also be built without this module, by calling the constructors.
"""

import importlib
import inspect
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mirage_sim.paths import CONFIGS
from mirage_sim.settings import COMMANDS, Settings, WorldSettings
from mirage_sim.settings.fields import defaults, groups, texts

if TYPE_CHECKING:
    from mirage_sim.world import WorldModel

#: last words of the names in the shared configurations whose values are text: files, folders, models, prompts
SHARED_TEXTS = frozenset("address branch cache folder lora name path prompt".split())
#: what configurations share at the root besides the fields of a command
SHARED = frozenset("address depth filter inject latent num_workers wan".split())
_MAIN = "mirage_sim_command"  # hydra's name of the command's settings


def compose(command: str, overrides: Sequence[str] = ()) -> Any:
    """Compose the settings of a command; works inside a hydra application of the caller, too.

    Args:
        command: such as ``"rollout"`` or ``"eval fidelity"``, or ``"world"`` for a world model alone.
        overrides: as on the command line: ``"steps=50"``, ``"memory=rgb"``, ``"world.sampler.steps=4"``. Values that
            are text (paths, prompts, names) are taken literally; all others have hydra's syntax.

    Returns:
        An instance of the command's class in :mod:`mirage_sim.settings`, checked, with every interpolation resolved.

    Raises:
        ValueError: in one line that names what is wrong and what was expected.
    """
    if isinstance(overrides, str) or not all(isinstance(override, str) for override in overrides):
        raise ValueError(f"overrides: expected a list of strings, got {overrides!r}")
    name, words = find_command(command, overrides)
    settings = WorldSettings if name == "world" else COMMANDS[name]
    words = _with_names(name, settings.positional, words)
    from hydra.errors import HydraException, MissingConfigException
    from omegaconf.errors import OmegaConfBaseException

    try:
        config = _compose(settings, *_separate(words, texts(settings)))
    except MissingConfigException as error:
        raise ValueError(_missing_option(error)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(_explain(error, settings)) from error
    return settings.read({key: value for key, value in config.items() if key not in SHARED or key == "latent"})


def find_command(command: str, words: Sequence[str]) -> tuple[str, list[str]]:
    """Return the full name of a command with its variant, and the words that are left.

    A variant is a word (``mirage eval fidelity``) or a choice (``mirage train recipe=mini``).

    Raises:
        ValueError: if there is no such command or variant.
    """
    command, *others = command.split() or [""]
    left = [*others, *words]
    for i, word in enumerate(left):
        variant, equals, _ = word.partition("=")
        if f"{command} {variant}" in COMMANDS:
            return f"{command} {variant}", left if equals else left[:i] + left[i + 1 :]
    if command in COMMANDS or command == "world":
        return command, left
    variants = [name.partition(" ")[2] for name in COMMANDS if name.startswith(f"{command} ")]
    if variants:
        raise ValueError(f"{command}: expected one of {variants}, got {' '.join(left) or 'nothing'}")
    raise ValueError(f"command: expected one of {list(dict.fromkeys(map(_first, COMMANDS)))}, got {command!r}")


def _first(name: str) -> str:
    return name.partition(" ")[0]


def _with_names(command: str, positional: Sequence[str], words: Sequence[str]) -> list[str]:
    """Return the words as ``name=value``; words without a name set the positional settings in order."""
    unnamed = [word for word in words if "=" not in word and not word.startswith("~")]
    if len(unnamed) > len(positional):
        wanted = " ".join([*map(str.upper, positional), "key=value ..."])
        raise ValueError(f"{command}: expected {wanted}, got {unnamed[len(positional)]!r}")
    names = iter(positional)
    return [f"{next(names)}={word}" if word in unnamed else word for word in words]


def _separate(overrides: Sequence[str], patterns: set[str]) -> tuple[list[str], dict[str, str]]:
    """Split overrides into those in hydra's syntax and texts by their keys, which hydra must not parse.

    Left to hydra are quoted texts, ``null``, which means none, and the number of a walk.

    Args:
        overrides: key=value.
        patterns: of the keys of the command's own settings that are text.

    Raises:
        ValueError: for ``null`` where a file has that name.
    """
    parsed, literal = [], {}
    for override in overrides:
        key, equals, text = override.partition("=")
        quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
        number = key == "walk" and text.lstrip("-").isdecimal()
        if not equals or not _is_text(key, patterns) or quoted or number:
            parsed.append(override)
        elif text == "null":
            if Path(text).exists():
                raise ValueError(f"{key}: expected ./null for the file of that name, got null, which means none")
            parsed.append(override)
        else:
            literal[key] = text
    return parsed, literal


def _is_text(key: str, patterns: set[str]) -> bool:
    if key.partition(".")[0] in SHARED | {"memory", "world"}:
        return key.rpartition(".")[2] in SHARED_TEXTS
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def _compose(settings: type[Settings], overrides: Sequence[str], literal: Mapping[str, str]) -> dict[str, Any]:
    import hydra
    from omegaconf import OmegaConf

    with (
        _own_hydra(settings),
        hydra.initialize_config_dir(str(CONFIGS.resolve()), job_name="mirage_sim", version_base="1.3"),
    ):
        config = hydra.compose(_MAIN, overrides=list(overrides))
        for key, text in literal.items():  # before interpolations are resolved, which may refer to a text
            OmegaConf.update(config, key, re.sub(r"(\\*)\$\{", r"\1\1\\${", text))
        return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, throw_on_missing=True))


@contextmanager
def _own_hydra(settings: type[Settings]) -> Iterator[None]:
    """Replace the caller's global hydra by ours, which knows the settings, and restore the very same objects."""
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.singleton import Singleton
    from hydra.version import VersionBase

    kinds = (GlobalHydra, VersionBase)
    instances = cast(dict[Any, Any], Singleton._instances)
    theirs = {kind: instances.pop(kind) for kind in kinds if kind in instances}
    store = ConfigStore.instance()
    entries = store.repo
    store.repo = {name: entry for name, entry in entries.items() if name in ("hydra", "_dummy_empty_config_.yaml")}
    try:
        _register(store, settings)
        yield
    finally:
        store.repo = entries
        for kind in kinds:
            instances.pop(kind, None)
        instances.update(theirs)


def _register(store: Any, settings: type[Settings]) -> None:
    """Store the default values of a settings class, and of the options of its groups that are classes."""
    order: list[Any] = []
    for field in groups(settings):
        order.append({field.name: field.metadata["group"]})
        for option, cls in (field.metadata["options"] or {}).items():
            store.store(group=field.name, name=option, node=defaults(cls))
    presets = [{field.name: preset} for field in fields(settings) if (preset := field.metadata.get("presets"))]
    store.store(name=_MAIN, node={"defaults": [*order, "_self_", *presets], **defaults(settings)})


def _missing_option(error: Any) -> str:
    wanted = Path(str(error.missing_cfg_file))
    if error.options:
        return f"{wanted.parent}: expected one of {sorted(error.options)}, got {wanted.name!r}"
    return f"config: expected a group among {_groups()}, got {str(wanted.parent)!r}"


def _groups() -> list[str]:
    return sorted(path.name for path in CONFIGS.iterdir() if path.is_dir())


def _explain(error: Exception, settings: type[Settings]) -> str:
    """Return one line for hydra's several, with the keys that exist."""
    if missing := re.search(r"Missing mandatory value: (\S+)", str(error)):
        name, full = missing.group(1), str(getattr(error, "full_key", ""))
        return f"{full if full.endswith('.' + name) else name}: expected a value, got none"
    cause = error.__cause__ or error
    key = getattr(cause, "full_key", None)
    if not key:
        found = re.search(r"Could not override '([^']+)'", str(error))
        key = found.group(1) if found else None
    if key:
        node: Any = _compose(settings, (), {})
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
    """Build the object that a configuration describes.

    A mapping with ``_target_`` becomes a call of that class or function with the other entries as keyword arguments,
    inner nodes first; lists become tuples. Equal nodes within one call become one object, so a memory that needs the
    world's codec (``codec: ${world.codec}``) shares it.

    Args:
        node: plain configuration (dict, list or value), such as ``compose("world").world``.
        allow: prefixes that a ``_target_`` may have. The object must also be *defined* below one of them, so that a
            configuration cannot reach other modules through the allowed ones.

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
    # a configuration could call this module's functions with prefixes of its choice
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
    """Build a world model by name, such as ``build_world_model("mini", ["memory=rgb", "world.sampler.steps=4"])``.

    Args:
        world: a file in ``configs/world``.
        overrides: see :func:`compose`.

    Raises:
        ValueError: for unknown worlds, keys and options.
        FileNotFoundError: if weights are missing.
    """
    return cast("WorldModel", instantiate(compose("world", [f"world={world}", *overrides]).world))
