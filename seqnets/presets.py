"""Presets: the configuration files that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

from seqnets.checks import did_you_mean
from seqnets.config import ConfigError

__all__ = ["find_preset", "preset_names", "presets_folder"]


def presets_folder() -> Path:
    """The folder of all presets: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def preset_names(group: str) -> list[str]:
    """The names of the presets of a group such as ``"text"``, sorted."""
    return sorted(path.stem for path in (presets_folder() / group).glob("*.toml"))


def find_preset(group: str, config: str) -> Path:
    """Find a configuration file.

    Args:
      group: group of presets, such as ``"text"``.
      config: a path ending in ``.toml``, or the name of a preset.

    Raises:
      ConfigError: if there is no preset of this name.
    """
    if config.endswith(".toml"):
        return Path(config)
    names = preset_names(group)
    if config not in names:
        hint = did_you_mean(config, names)
        raise ConfigError(f"{config}: neither a .toml file nor a preset of {group}; {hint}")
    return presets_folder() / group / f"{config}.toml"
