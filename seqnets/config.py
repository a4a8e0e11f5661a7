"""Configurations: TOML files, single settings, or keywords, decoded into frozen dataclasses.

A configuration is a dataclass of sections, which are dataclasses too. Each section is defined next
to what it configures, and each default is defined once: in the section, or in a configuration that
overrides it. The resolved configuration is written to the run directory, and a run can be rebuilt
from it alone.

Properties of a field other than its type and default are set on the field:

    field(default, may_change=True)        a resumed run may have another value
    field(default, may_differ=True)        processes of one run may have different values
    field(default, formerly="steps")       files and settings may use the former name
    field(default, keyword=None)           it is not a keyword of estimators
    field(default, options_of="name")      the default applies only to the default name
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import msgspec
import tomli_w

from seqnets.checks import did_you_mean
from seqnets.files import read_at_most

__all__ = [
    "ConfigError",
    "Fraction",
    "NotNegative",
    "Positive",
    "Seconds",
    "call_named",
    "check_resumable",
    "convert",
    "differences",
    "dump",
    "field",
    "from_keywords",
    "keywords_of",
    "load",
    "look_up",
    "parse_setting",
    "parse_toml",
    "signature_of",
]

MAXIMUM_BYTES = 2**15

Positive = Annotated[int, msgspec.Meta(ge=1, lt=2**31)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
Fraction = Annotated[float, msgspec.Meta(ge=0, lt=1)]

ConfigT = TypeVar("ConfigT")
SAME = "same"


class ConfigError(ValueError):
    """A configuration is invalid; the message names the key."""


def field(
    default: Any,
    *,
    may_change: bool = False,
    may_differ: bool = False,
    formerly: str | None = None,
    keyword: str | None = SAME,
    options_of: str | None = None,
) -> Any:
    """Define a field of a section.

    Args:
      default: default value; a list or dict is copied for each instance.
      may_change: whether a resumed run may have another value.
      may_differ: whether the processes of one run may have different values.
      formerly: former name of the field, which files and settings may still use.
      keyword: name of the keyword of estimators, by default the field's name; None for no keyword.
      options_of: name of the field that selects what these options are for. The default options
        apply only if that field has its default value; otherwise they are empty by default.
    """
    about = dict(
        may_change=may_change,
        may_differ=may_differ,
        formerly=formerly,
        keyword=keyword,
        options_of=options_of,
    )
    if isinstance(default, dict | list):
        return dataclasses.field(default_factory=lambda: copy.deepcopy(default), metadata=about)
    return dataclasses.field(default=default, metadata=about)


def load(
    kind: type[ConfigT], path: str | Path, settings: Mapping[str, Any] | None = None
) -> ConfigT:
    """Read a configuration file.

    Args:
      kind: dataclass of sections.
      path: TOML file.
      settings: values by dotted key (``"train.seed"``, ``"model.layers.0.features"``), which
        override those of the file; None removes the key.

    Raises:
      ConfigError: if the file cannot be read or is larger than 32 KiB, a key does not exist, or a
        value has a wrong type.
    """
    try:
        text = read_at_most(path, MAXIMUM_BYTES).decode()
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error
    values = parse_toml(text, str(path))
    for key, value in (settings or {}).items():
        present, former = _names_of(kind, key)
        if former is not None:
            _put(values, former, None)
        _put(values, present, value)
    return convert(kind, values, str(path))


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """Parse a TOML text.

    Raises:
      ConfigError: if the text is not TOML; the message begins with ``name``.
    """
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name}: not a TOML file: {error}") from error


def convert(
    kind: type[ConfigT],
    values: Mapping[str, Any],
    name: str = "configuration",
    base: ConfigT | None = None,
) -> ConfigT:
    """Convert nested values to a configuration.

    Args:
      kind: dataclass of sections, each with a default.
      values: values by section and key.
      name: beginning of a message that cannot name a key.
      base: configuration that the values override; None for the defaults.

    Raises:
      ConfigError: if a key does not exist, or a value has a wrong type.
    """
    merged = _laid_over(kind, _plain(base or kind()), _known(kind, values, ""))
    try:
        return msgspec.convert(merged, kind)
    except msgspec.ValidationError as error:
        message, _, key = str(error).partition(" - at `$.")
        key = key.rstrip("`").replace("[", ".").replace("]", "")
        raise ConfigError(f"{key or name}: {message}") from error


def parse_setting(text: str) -> tuple[str, Any]:
    """Parse ``section.key=value`` into a dotted key and a value: TOML, or else a bare string.

    Raises:
      ConfigError: if the text does not have this form.
    """
    path, equals, written = (part.strip() for part in text.partition("="))
    if not equals or not all(path.split(".")) or "." not in path:
        raise ConfigError(f"--set: expected section.key=value, got {text!r}")
    if "\n" in written:
        raise ConfigError(f"--set {path}: expected a value on one line, got {written!r}")
    try:
        return path, tomllib.loads(f"value = {written}")["value"]
    except (ValueError, RecursionError):
        return path, written


def dump(config: Any) -> str:
    """Format a configuration as TOML for `load`, without the keys whose value is None."""
    return tomli_w.dumps(_plain(config))


def check_resumable(before: Any, now: Any, name: str) -> None:
    """Raise an error unless a run can be resumed with another configuration.

    Args:
      before: configuration of the run.
      now: current configuration.
      name: name of the run in messages.

    Raises:
      ConfigError: at the first key that differs and on which checkpoints depend.
    """
    for key, old, new in differences(before, now, but="may_change"):
        raise ConfigError(
            f"{name}: cannot resume with a different {key}: the run has {old!r}, now {new!r}"
        )


def differences(one: ConfigT, other: ConfigT, *, but: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield the keys with different values in two configurations: ``(key, value, other value)``.

    Args:
      one: a configuration.
      other: another one of the same kind.
      but: property of fields to skip, ``"may_change"`` or ``"may_differ"``.
    """
    for section in dataclasses.fields(one):  # type: ignore[arg-type]
        values, others = getattr(one, section.name), getattr(other, section.name)
        for field in dataclasses.fields(values):
            a, b = getattr(values, field.name), getattr(others, field.name)
            if a != b and not field.metadata.get(but):
                yield f"{section.name}.{field.name}", a, b


def look_up(key: str, table: Mapping[str, Any], name: str) -> Any:
    """Look up the object named ``name``.

    Raises:
      ConfigError: if the table has no such name; the message names ``key`` and a similar name.
    """
    if name not in table:
        raise ConfigError(f"{key}: unknown name {name!r}; {did_you_mean(name, table)}")
    return table[name]


def call_named(
    key: str,
    function: Callable[..., Any],
    name: str,
    options: Mapping[str, Any],
    **fixed: Any,
) -> Any:
    """Call a function with options, which must be among its parameters.

    Args:
      key: key of the options in messages.
      function: function to call.
      name: name of the function in messages.
      options: arguments from a configuration.
      **fixed: other arguments, which options cannot override.

    Raises:
      ConfigError: if an option is not a parameter, or the function rejects it.
    """
    known = set(inspect.signature(function).parameters) - set(fixed)
    for option in options:
        if option not in known:
            hint = did_you_mean(option, known) if known else f"{name} has no options"
            raise ConfigError(f"{key}: unknown option {option!r} of {name}; {hint}")
    try:
        return function(**fixed, **options)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{key}: {error}") from error


def keywords_of(kind: type) -> dict[str, str]:
    """The keywords of a configuration's fields, with the dotted key of each.

    Raises:
      TypeError: if two fields have the same keyword.
    """
    found: dict[str, str] = {}
    for section in dataclasses.fields(kind):
        for one in dataclasses.fields(_section(kind, section.name)):
            keyword = one.metadata.get("keyword", SAME)
            keyword = one.name if keyword == SAME else keyword
            if keyword is None:
                continue
            key = f"{section.name}.{one.name}"
            if keyword in found:
                raise TypeError(
                    f"{kind.__name__}: {found[keyword]} and {key} have the keyword {keyword!r}"
                )
            found[keyword] = key
    return found


def from_keywords(kind: type[ConfigT], keywords: Mapping[str, Any]) -> ConfigT:
    """Make a configuration from keywords; see `keywords_of`.

    Raises:
      ConfigError: if a keyword does not exist or its value is invalid; the message names it.
    """
    known = keywords_of(kind)
    values: dict[str, dict[str, Any]] = {}
    for keyword, value in keywords.items():
        if keyword not in known:
            raise ConfigError(f"unknown keyword {keyword!r}; {did_you_mean(keyword, known)}")
        section, key = known[keyword].split(".")
        values.setdefault(section, {})[key] = _plain(value)
    try:
        return convert(kind, values)
    except ConfigError as error:
        message = str(error)
        for keyword, key in known.items():
            message = re.sub(rf"(?<![\w.]){re.escape(key)}(?=[.:;])", keyword, message)
        raise ConfigError(message) from error


def signature_of(kind: type) -> inspect.Signature:
    """The signature with the keywords of a configuration and their defaults."""
    defaults, parameters = kind(), []
    for keyword, key in keywords_of(kind).items():
        section, name = key.split(".")
        parameters.append(
            inspect.Parameter(
                keyword,
                inspect.Parameter.KEYWORD_ONLY,
                default=getattr(getattr(defaults, section), name),
                annotation=get_type_hints(_section(kind, section))[name],
            )
        )
    return inspect.Signature(parameters)


def _section(kind: type, name: str) -> Any:
    return get_type_hints(kind)[name]


def _plain(value: Any) -> Any:
    """Convert sections to dicts and sequences to lists, omitting None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items() if one is not None}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _laid_over(kind: type, defaults: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Override defaults key by key; tables and lists within a section are replaced as a whole."""
    merged = dict(defaults)
    for section, given in values.items():
        merged[section] = given
        if isinstance(given, Mapping):
            kept = dict(defaults[section])
            for one in dataclasses.fields(_section(kind, section)):
                owner = one.metadata.get("options_of")
                if owner in given and given[owner] != kept.get(owner):
                    kept[one.name] = {}
            merged[section] = {**kept, **given}
    return merged


def _names_of(kind: type, path: str) -> tuple[str, str | None]:
    """A dotted key with the current name of its field, and the key of the former name, or None."""
    section, _, rest = path.partition(".")
    hints = get_type_hints(kind)
    if section not in hints or not dataclasses.is_dataclass(hints[section]):
        return path, None
    key, dot, tail = rest.partition(".")
    for one in dataclasses.fields(hints[section]):
        former = one.metadata.get("formerly")
        if former is not None and key in (former, one.name):
            return f"{section}.{one.name}{dot}{tail}", f"{section}.{former}"
    return path, None


def _put(values: Any, path: str, value: Any) -> None:
    """Set a value at a dotted key of nested dicts and lists, or remove the key."""
    *sections, key = path.split(".")
    for name in sections:
        if isinstance(values, list):
            values = values[_index(path, values, name)]
        else:
            values = values.setdefault(name, {})
        if not isinstance(values, dict | list):
            raise ConfigError(f"{path}: {name} is neither a section nor a list of tables")
    if isinstance(values, list):
        values[_index(path, values, key)] = value
    elif value is None:
        values.pop(key, None)
    else:
        values[key] = value


def _index(path: str, values: list[Any], name: str) -> int:
    if not name.isdecimal() or int(name) >= len(values):
        raise ConfigError(f"{path}: expected a number below {len(values)}, got {name!r}")
    return int(name)


def _known(kind: Any, values: Any, prefix: str) -> Any:
    """Values with the current names of their keys; raises an error for an unknown key."""
    if isinstance(values, list):
        return [_known(kind, one, f"{prefix}{number}.") for number, one in enumerate(values)]
    if not isinstance(values, Mapping):
        return values
    hints = get_type_hints(kind)
    former = {one.metadata.get("formerly"): one.name for one in dataclasses.fields(kind)}
    found: dict[str, Any] = {}
    for key, value in values.items():
        name = former.get(key, key)
        if name not in hints:
            raise ConfigError(f"unknown key {prefix}{key}; {did_you_mean(key, hints)}")
        if name in found:
            raise ConfigError(f"{prefix}{name}: given twice, once by its former name")
        for section in _sections_in(hints[name]):
            if isinstance(value, Mapping) and any(one.isdecimal() for one in value):
                raise ConfigError(
                    f"{prefix}{name}: expected a list of tables, whose tables could be set"
                )
            value = _known(section, value, f"{prefix}{name}.")
        found[name] = value
    return found


def _sections_in(hint: Any) -> list[Any]:
    """The dataclasses in a type: a section, an optional section, or a list of sections."""
    if dataclasses.is_dataclass(hint):
        return [hint]
    return [section for part in get_args(hint) for section in _sections_in(part)]
