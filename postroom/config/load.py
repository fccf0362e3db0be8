"""Reading the configuration file: the whole of it is right, or nothing starts."""

import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from postroom.config.files import Files
from postroom.config.rules import find_faults
from postroom.config.salvage import decode_what_is_right, is_news
from postroom.config.structs import Agent, Config
from postroom.decode import Fault, convert
from postroom.errors import ConfigError
from postroom.secret import Secret

VARIABLES = {
    "/redis/url": "POSTROOM_REDIS_URL",
    "/redis/arq_url": "POSTROOM_ARQ_URL",
}  # what stands in for what
BY_REFERENCE = 'give a secret by reference: { env = "NAME" } or { file = "PATH" }'


def load_config(path: Path, environ: Mapping[str, str]) -> Config:
    """Read, decode and check the file; `environ` is where `{ env = … }` and POSTROOM_REDIS_URL are looked up.

    Raises:
        ConfigError: with every unknown key, wrong type, missing secret and unknown agent, each with its path.
    """
    return read_config(path, environ, Files())


def read_config(path: Path, environ: Mapping[str, str], files: Files) -> Config:
    """Do the same as `load_config`; `files` has every file it depended on then, also where it raises."""
    source = str(path)
    try:
        data = tomllib.loads(files.read(path).decode())
    except OSError as error:
        raise ConfigError(source, [Fault("", f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise ConfigError(source, [Fault("", "is not UTF-8")]) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(source, [Fault("", f"is not TOML: {error}")]) from None
    config, faults = convert(data, Config, dec_hook=_secret_reader(path.parent, environ, files))
    if config is None:
        raise ConfigError(source, faults + _further_faults(data, faults, path.parent, environ))
    config = _resolve(config, path.parent, environ)
    _read_authorities(config, files)
    faults = _place(find_faults(config), environ)
    if faults:
        raise ConfigError(source, faults)
    return config


def _further_faults(
    data: dict[str, Any], faults: list[Fault], folder: Path, environ: Mapping[str, str]
) -> list[Fault]:
    """Return what else is wrong with a file that could not be decoded, so that one run tells all of it."""
    config = decode_what_is_right(data, faults)
    if config is None:
        return []
    agents = data.get("agents")
    known = frozenset(agents) if isinstance(agents, dict) else frozenset()
    found = find_faults(_resolve(config, folder, environ), known_agents=known)
    return [fault for fault in _place(found, environ) if is_news(fault, faults)]


def _place(faults: list[Fault], environ: Mapping[str, str]) -> list[Fault]:
    """Return the faults with the variable as the place of what a variable stood in for."""
    named = {pointer: name for pointer, name in VARIABLES.items() if environ.get(name)}
    return [Fault(named.get(fault.pointer, fault.pointer), fault.detail) for fault in faults]


def _resolve(config: Config, folder: Path, environ: Mapping[str, str]) -> Config:
    """Apply what the environment overrides, and anchor relative folders at the file's own."""
    redis, templates = config.redis, config.templates
    if url := environ.get(VARIABLES["/redis/url"]):
        redis = msgspec.structs.replace(redis, url=url)
    if url := environ.get(VARIABLES["/redis/arq_url"]):
        redis = msgspec.structs.replace(redis, arq_url=url)
    where = environ.get("POSTROOM_TEMPLATES_DIR") or templates.dir
    templates = msgspec.structs.replace(templates, dir=str(folder / where))
    agents = {name: _anchor_files(agent, folder) for name, agent in config.agents.items()}
    return msgspec.structs.replace(config, redis=redis, templates=templates, agents=agents)


def _anchor_files(agent: Agent, folder: Path) -> Agent:
    channels = tuple(
        c if c.ca_file is None else msgspec.structs.replace(c, ca_file=str(folder / c.ca_file))
        for c in agent.channels
    )
    return msgspec.structs.replace(agent, channels=channels)


def _read_authorities(config: Config, files: Files) -> None:
    """Have the `ca_file`s among the files; whether one can be used shows when it is."""
    for channel in (channel for agent in config.agents.values() for channel in agent.channels):
        if channel.ca_file is not None:
            with suppress(OSError):
                files.read(Path(channel.ca_file))


def _secret_reader(folder: Path, environ: Mapping[str, str], files: Files) -> Callable[[type, Any], Any]:
    def read(kind: type, value: Any) -> Any:
        if kind is not Secret:
            raise NotImplementedError
        match value:
            case {"env": str(name), **rest} if not rest:
                found = _bare(environ.get(name, ""))
                missing = f"environment variable {name} is not set"
            case {"file": str(name), **rest} if not rest:
                found = _read_secret(folder / name, files)
                missing = f"file {name} cannot be read or is empty"
            case _:
                raise ValueError(BY_REFERENCE)
        if not found:
            raise ValueError(missing)
        return Secret(found)

    return read


def _read_secret(path: Path, files: Files) -> str:
    try:
        return _bare(files.read(path).decode())
    except (OSError, UnicodeDecodeError):
        return ""


def _bare(text: str) -> str:
    """Return a secret without the line ends that an editor, `echo` or base64 put behind it."""
    return text.rstrip("\r\n")
