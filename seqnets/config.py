"""Configurations: TOML files, single settings, or keywords, decoded into frozen dataclasses.

A configuration is a dataclass of sections, which are dataclasses too. Each section is beside what
it configures, and each default stands once: in the section, or in the configuration that gives its
section other defaults. The resolved configuration is written beside the checkpoints, and a run can
be rebuilt from it alone.

What a field is beside its type and default is said on the field:

    field(default, may_change=True)        a resumed run may have another value
    field(default, may_differ=True)        processes of one training may have different values
    field(default, formerly="steps")       files and settings may use the former key
    field(default, keyword=None)           estimators do not take it as a keyword
    field(default, options_of="name")      the default holds only for the default name
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
    """A configuration that cannot be used; the message names the key."""


def field(
    default: Any,
    *,
    may_change: bool = False,
    may_differ: bool = False,
    formerly: str | None = None,
    keyword: str | None = SAME,
    options_of: str | None = None,
) -> Any:
    """A field of a section with a default.

    Args:
      default: the default; a list, a dict, or a dataclass is copied for each instance.
      may_change: whether a resumed run may have another value.
      may_differ: whether the processes of one training may have different values.
      formerly: a former name of the key, which files and settings may still use.
      keyword: name as a keyword of estimators, None if it is none; by default the field's own.
      options_of: the field whose default these options belong to; another value starts from none.
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
    """Read a configuration.

    Args:
      kind: a dataclass of sections.
      path: a TOML file.
      settings: values by dotted keys (``"train.seed"``, ``"model.layers.0.features"``), which
        override the file's; None takes the key out.

    Raises:
      ConfigError: if the file cannot be read or has more than 32 KiB, a key does not exist or a
        value is of a wrong type.
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
    """The values of a TOML text.

    Raises:
      ConfigError: if it is not TOML, naming it by ``name``.
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
    """Decode nested values, laid over those of a configuration.

    Args:
      kind: a dataclass of sections, each with a default.
      values: by section and key.
      name: what a message is about where it can name no key.
      base: what they are laid over; None for the defaults.

    Raises:
      ConfigError: if a key does not exist or a value is of a wrong type.
    """
    merged = _laid_over(kind, _plain(base or kind()), _known(kind, values, ""))
    try:
        return msgspec.convert(merged, kind)
    except msgspec.ValidationError as error:
        message, _, key = str(error).partition(" - at `$.")
        key = key.rstrip("`").replace("[", ".").replace("]", "")
        raise ConfigError(f"{key or name}: {message}") from error


def parse_setting(text: str) -> tuple[str, Any]:
    """``section.key=value`` as dotted key and value: TOML's notation, or a bare string.

    Raises:
      ConfigError: if the text is not of this form.
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
    """The configuration as TOML, keys without a value left out; `load` reads it back."""
    return tomli_w.dumps(_plain(config))


def check_resumable(before: Any, now: Any, name: str) -> None:
    """Raise unless two configurations agree in all that a checkpoint depends on.

    Args:
      before: of the run.
      now: of now.
      name: of the run, for messages.

    Raises:
      ConfigError: at the first other key.
    """
    for key, old, new in differences(before, now, but="may_change"):
        raise ConfigError(
            f"{name}: cannot resume with another {key}: the run has {old!r}, now {new!r}"
        )


def differences(one: ConfigT, other: ConfigT, *, but: str) -> Iterator[tuple[str, Any, Any]]:
    """Keys with different values in two configurations: ``(key, value, other value)``.

    Args:
      one: a configuration.
      other: of the same kind.
      but: fields of which this is said are passed over, ``"may_change"`` or ``"may_differ"``.
    """
    for section in dataclasses.fields(one):  # type: ignore[arg-type]
        values, others = getattr(one, section.name), getattr(other, section.name)
        for field in dataclasses.fields(values):
            a, b = getattr(values, field.name), getattr(others, field.name)
            if a != b and not field.metadata.get(but):
                yield f"{section.name}.{field.name}", a, b


def look_up(key: str, table: Mapping[str, Any], name: str) -> Any:
    """The object called ``name``.

    Raises:
      ConfigError: if the table has none, naming ``key`` and the nearest name.
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
    """Call a function with options, which must be its parameters.

    Args:
      key: of the options, for messages.
      function: what is called.
      name: of the function, for messages.
      options: arguments from a configuration.
      **fixed: further arguments, which no option may name.

    Raises:
      ConfigError: if an option is no parameter, or the function rejects it.
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
    """The keywords of a configuration's fields, each with its dotted key.

    Raises:
      TypeError: if two fields have one keyword.
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
                raise TypeError(f"{kind.__name__}: {found[keyword]} and {key} are both {keyword!r}")
            found[keyword] = key
    return found


def from_keywords(kind: type[ConfigT], keywords: Mapping[str, Any]) -> ConfigT:
    """A configuration from keywords; see `keywords_of`.

    Raises:
      ConfigError: if a keyword does not exist or its value does not fit, naming the keyword.
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
    """The keywords of a configuration as a signature, with their defaults."""
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
    """Sections as dicts and sequences as lists, without what is None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items() if one is not None}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value


def _laid_over(kind: type, defaults: dict[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Sections' values over their defaults; tables and lists within a section replace whole."""
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
    """A dotted key with the present name of its field, and with the former one if it has one."""
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
    """Put a value at a dotted key of nested dicts and lists, or take it out."""
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
    """Values with the present names of their keys; raises for the first that does not exist."""
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
            raise ConfigError(f"{prefix}{name}: given twice, once under its former name")
        for section in _sections_in(hints[name]):
            if isinstance(value, Mapping) and any(one.isdecimal() for one in value):
                raise ConfigError(f"{prefix}{name}: has no list of tables to change a table of")
            value = _known(section, value, f"{prefix}{name}.")
        found[name] = value
    return found


def _sections_in(hint: Any) -> list[Any]:
    """The dataclasses that a type may hold: a section, an optional one, or a list of them."""
    if dataclasses.is_dataclass(hint):
        return [hint]
    return [section for part in get_args(hint) for section in _sections_in(part)]
