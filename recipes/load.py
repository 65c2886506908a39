"""Read a recipe: YAML file, then ``section.key=value`` overrides, then validation."""

import difflib
import sys
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from trimtab.artifacts.errors import InputError
from trimtab.recipes.demo import DemoSection
from trimtab.recipes.schema import Recipe
from trimtab.recipes.section import Section
from trimtab.recipes.serve import ServeSection

Alone = TypeVar("Alone", bound=Section)
# Names that papers and tutorials use for ORPO's weight (lambda in arXiv 2403.07691, beta in TRL).
ORPO_BETA_ALIASES = ("lambda_or", "orpo_alpha", "orpo_beta")


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """The recipe in ``path`` with ``section.key=value`` overrides; InputError says what is wrong with it."""
    path = Path(path)
    if not path.is_file():
        shipped = sorted(p.name for p in Path(__file__).parent.glob("*.yaml"))
        raise InputError(f"recipe {path}: no such file; shipped in recipes/: {', '.join(shipped)}")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"recipe {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise InputError(f"recipe {path}: got {type(tree).__name__}, needs a mapping of sections")
    for override in overrides or []:
        _override(tree, override)
    _rename_aliases(tree)
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise InputError(f"recipe {path}: {describe(error, Recipe)}") from error


def load_serve_section(overrides: list[str]) -> ServeSection:
    """A ``serve`` section of overrides alone; InputError for keys of other sections."""
    return _alone(_ServeAlone, overrides).serve


def load_demo_section(overrides: list[str]) -> DemoSection:
    """A ``demo`` section of overrides alone; InputError for keys of other sections."""
    return _alone(_DemoAlone, overrides).demo


class _ServeAlone(Section):
    serve: ServeSection = ServeSection()


class _DemoAlone(Section):
    demo: DemoSection = DemoSection()


def _alone(model: type[Alone], overrides: list[str]) -> Alone:
    tree: dict[str, Any] = {}
    for override in overrides:
        _override(tree, override)
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        raise InputError(describe(error, model)) from error


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """The first fault of ``error`` as one line: key, what was got, what is allowed."""
    # An unknown key is most often the cause of a missing one.
    first = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    location = [str(part) for part in first["loc"] if "[" not in str(part)]  # no names of types
    key = ".".join(location)
    if first["type"] != "extra_forbidden":
        message = first["msg"].removeprefix("Value error, ")
        got = "" if isinstance(first["input"], dict) else f" (got {first['input']!r})"
        return f"{key}: {message[0].lower()}{message[1:]}{got}"
    allowed = _keys_at(model, location[:-1])
    near = difflib.get_close_matches(location[-1], allowed, 1, cutoff=0.4)
    section = ".".join(location[:-1]) or "the recipe"
    hint = f"did you mean {near[0]!r}?" if near else f"{section} takes: {', '.join(allowed)}"
    return f"unknown key {key!r}; {hint}"


def _override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise InputError(f"override {override!r}: needs the form section.key=value, e.g. train.max_steps=20")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"override {override!r}: the value is not valid YAML") from error
    node = tree
    for part in parts[:-1]:
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            raise InputError(f"override {override!r}: {part} is a value, not a section")
        node = child
    node[parts[-1]] = _number(value)


def _number(value: Any) -> Any:
    """YAML 1.1 reads 5e-4 as a string; read it as the number that is meant."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _rename_aliases(tree: dict[str, Any]) -> None:
    train = tree.get("train")
    orpo = train.get("orpo") if isinstance(train, dict) else None
    if not isinstance(orpo, dict):
        return
    for alias in ORPO_BETA_ALIASES:
        if alias in orpo:
            if "beta" in orpo:
                raise InputError(f"train.orpo has both beta and {alias}, its alias; keep beta")
            orpo["beta"] = orpo.pop(alias)
            print(f"note: train.orpo.{alias} is read as train.orpo.beta", file=sys.stderr)


def _keys_at(model: type[BaseModel], location: list[str]) -> list[str]:
    for part in location:
        if not part.isdigit():  # a place in a list: its items are of the field's model
            inner = _model_in(model.model_fields[part].annotation)
            if inner is None:
                return []
            model = inner
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
