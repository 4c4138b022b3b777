"""Recipes: defaults, then a TOML file, then ``--set a.b=value``. A key that nobody reads is an error."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from timeloupe.errors import ConfigError, MissingError

ModelT = TypeVar("ModelT", bound=BaseModel)
Location = tuple[int | str, ...]


def load_recipe(path: str | Path | None, overrides: Sequence[str], model: type[ModelT]) -> ModelT:
    """Return the resolved recipe; ``model_dump(mode="json")`` of it belongs into the run folder.

    Args:
        path: A TOML file; ``None`` = defaults and overrides only.
        overrides: Each ``key.inner=value``, later ones last. The value is read as TOML (``3``, ``true``,
            ``[1, 2]``, ``"text"``), ``null`` as ``None``, and as plain text where it is neither.
            A number as a key picks an item of a list.
        model: What a recipe may say.

    Raises:
        MissingError: The file is not there.
        ConfigError: It is not TOML, a key is unknown, or a value is wrong; names file, line, key and what is
            allowed.
    """
    text = "" if path is None else _read(Path(path))
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}{_toml_line(error, text)} is not valid TOML: {error}") from error
    overridden: dict[Location, str] = {}
    for override in overrides:
        overridden[_apply(data, override)] = f"--set {override}"

    def place(location: Location) -> str:
        said = [
            overridden[location[:end]] for end in range(len(location), 0, -1) if location[:end] in overridden
        ]
        said += [words for key, words in overridden.items() if location and key[: len(location)] == location]
        return said[0] if said else _place("recipe" if path is None else str(path), text, location)

    problems: list[str] = []
    for location, legal in _unknown_keys(data, model):
        close = difflib.get_close_matches(str(location[-1]), legal, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        problems.append(
            f"{place(location)}: unknown key {_dotted(location)!r}{hint}, allowed: {', '.join(legal)}"
        )
    if problems:
        raise ConfigError("\n".join(problems))
    try:
        return model.model_validate(data)
    except ValidationError as error:
        for item in error.errors(include_url=False):
            location = _without_tags(item["loc"], data)
            got = "" if item["type"] == "missing" else f", got {item['input']!r}"
            problems.append(f"{place(location)}: {_dotted(location) or 'recipe'}: {item['msg']}{got}")
        raise ConfigError("\n".join(problems)) from error


def _read(path: Path) -> str:
    if not path.is_file():
        raise MissingError(f"no recipe at {str(path)!r}, expected a TOML file")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error}") from error


def _toml_line(error: tomllib.TOMLDecodeError, text: str) -> str:
    """Return ``:LINE`` of a syntax error, from its message in Python 3.11."""
    found = re.search(r"at line (\d+)", str(error))
    return f":{found[1]}" if found else f":{text.count(chr(10)) + 1}"


def _apply(data: dict[str, Any], override: str) -> Location:
    """Set one value in ``data``; return where."""
    name, equals, text = override.partition("=")
    steps = [step.strip() for step in name.split(".")]
    if not equals or not all(steps):
        raise ConfigError(f"--set needs key.inner=value, got {override!r}, for example --set seed=3")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = None if text.strip() == "null" else text.strip()  # as --dry-run prints what is not set
    at: Any = data
    location: list[int | str] = []
    for number, step in enumerate(steps):
        key: Any = step
        if isinstance(at, list):
            if not step.isdecimal() or int(step) >= len(at):
                legal = f"0 to {len(at) - 1}" if at else "none, the list is empty"
                raise ConfigError(f"--set {override}: a list takes a number, got {step!r}, allowed: {legal}")
            key = int(step)
        elif not isinstance(at, dict):
            raise ConfigError(
                f"--set {override}: {_dotted(location)} is a plain value, it has no key {step!r}"
            )
        location.append(key)
        if number + 1 == len(steps):
            at[key] = value
        elif isinstance(at, dict):
            at = at.setdefault(step, {})
        else:
            at = at[key]
    return tuple(location)


def _unknown_keys(
    data: Any, annotation: Any, location: Location = ()
) -> Iterator[tuple[Location, list[str]]]:
    """Yield where ``data`` has a key that no model of ``annotation`` takes, with the keys that would do."""
    if isinstance(data, list):
        for index, item in enumerate(data):
            yield from _unknown_keys(item, annotation, (*location, index))
    models = list(_models(annotation))
    if not isinstance(data, dict) or not models:
        return
    models = [model for model in models if _tags_fit(model, data)] or models
    legal: dict[str, Any] = {}
    for model in models:
        for name, field in model.model_fields.items():
            legal[name] = field.annotation if name not in legal else legal[name] | field.annotation
    for key, value in data.items():
        if key not in legal:
            yield (*location, key), sorted(legal)
        else:
            yield from _unknown_keys(value, legal[key], (*location, key))


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield every model class that an annotation names: itself, or what a list, union or optional of it holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) not in (Literal, dict):
        for inner in get_args(annotation):
            yield from _models(inner)


def _tags_fit(model: type[BaseModel], data: Mapping[str, Any]) -> bool:
    """Whether the literal fields of a member of a union allow what ``data`` says, such as its ``kind``."""
    literals = {
        name: get_args(field.annotation)
        for name, field in model.model_fields.items()
        if get_origin(field.annotation) is Literal and name in data
    }
    return all(data[name] in allowed for name, allowed in literals.items())


def _without_tags(location: tuple[Any, ...], data: Any) -> Location:
    """Return the place of a validation error as keys and list numbers only; pydantic adds the tags of unions."""
    keys: list[int | str] = []
    for step in location:
        if isinstance(data, dict) and step in data or isinstance(data, list) and isinstance(step, int):
            data = data[step]
            keys.append(step)
        elif step == location[-1] and isinstance(data, dict):
            keys.append(step)  # a missing key
    return tuple(keys)


def _place(source: str, text: str, location: Location) -> str:
    """Return ``file:line`` if only one line sets such a key, else the file."""
    names = [step for step in location if isinstance(step, str)]
    if not names:
        return source
    key = rf"[\"']?{re.escape(names[-1])}[\"']?"
    pattern = rf"\s*(\[+\s*([^]]*\.\s*)?{key}\s*\]|([^=#]*\.\s*)?{key}\s*=)"
    lines = [number for number, line in enumerate(text.split("\n"), 1) if re.match(pattern, line)]
    return f"{source}:{lines[0]}" if len(lines) == 1 else source


def _dotted(location: Iterable[int | str]) -> str:
    return ".".join(str(step) for step in location)
