"""Docstrings of all public names: what it is, shapes of every tensor, errors raised, sources of formulas."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import gankit
from gankit import errors as known_errors

ROOT = Path(gankit.__file__).parent
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef

# A shape such as (n, c, h, w), (d,), (n, ...), (height, width); or the words for no shape at all, or for any.
SIZE = r"(\w+|\.\.\.|[\w ]+[-+*/] ?\w+)"
SHAPE = re.compile(rf"\({SIZE}(,|(, {SIZE})+)\)|scalar|without shape|(same|any) shape|[Oo]ne row|rows")
ARRAY = re.compile(r"\b(Tensor|NDArray|Indices)\b")


def public_files() -> list[Path]:
    def private(path: Path) -> bool:
        return any(part.startswith("_") and part != "__init__.py" for part in path.relative_to(ROOT).parts)

    return [path for path in sorted(ROOT.rglob("*.py")) if not private(path)]


def definitions(
    node: ast.Module | ast.ClassDef, owners: tuple[Definition, ...] = ()
) -> Iterator[tuple[Definition, tuple[Definition, ...]]]:
    """Every public class, function and method of a file, with the classes around it."""
    for child in node.body:
        overload = "overload" in map(ast.unparse, getattr(child, "decorator_list", []))  # a type, not a function
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)) and not child.name.startswith("_") and not overload:
            yield child, owners
            if isinstance(child, ast.ClassDef):
                yield from definitions(child, (*owners, child))


def everything() -> list[tuple[str, Definition, tuple[Definition, ...]]]:
    found = []
    for path in public_files():
        for node, owners in definitions(ast.parse(path.read_text(encoding="utf-8"))):
            name = ".".join([str(path.relative_to(ROOT)), *(owner.name for owner in owners), node.name])
            found.append((name, node, owners))
    return found


ALL = everything()
FUNCTIONS = [entry for entry in ALL if isinstance(entry[1], ast.FunctionDef)]


def test_there_is_a_public_interface() -> None:
    assert len(ALL) > 300
    names = {name for name, *_ in ALL}
    assert {"interfaces/networks.py.Generator.forward", "losses/gradient_penalty.py.gradient_penalty"} <= names


def test_every_public_name_says_what_it_is() -> None:
    silent = [name for name, node, _ in ALL if len((ast.get_docstring(node) or "").split()) < 1]
    assert not silent


def texts(node: Definition, owners: tuple[Definition, ...]) -> str:
    """Its own docstring and those of the classes around it, which describe what methods share."""
    return "\n".join(ast.get_docstring(each) or "" for each in (node, *owners))


def arrays_of(node: ast.FunctionDef) -> list[str]:
    """Names of parameters that are arrays or tensors, and "return"."""
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    names = [a.arg for a in arguments if a.annotation and ARRAY.search(ast.unparse(a.annotation))]
    return names + (["return"] if node.returns and ARRAY.search(ast.unparse(node.returns)) else [])


def test_every_function_of_tensors_gives_their_shapes() -> None:
    lacking = [
        f"{name}({', '.join(arrays)})"
        for name, node, owners in FUNCTIONS
        if isinstance(node, ast.FunctionDef) and (arrays := arrays_of(node)) and not SHAPE.search(texts(node, owners))
    ]
    assert not lacking


def raised(node: Definition) -> set[str]:
    """Errors that the body itself raises by name and does not catch."""
    names: set[str] = set()
    caught: set[str] = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Raise) and isinstance(child.exc, ast.Call) and isinstance(child.exc.func, ast.Name):
            names.add(child.exc.func.id)
        elif isinstance(child, ast.Try):
            caught |= {ast.unparse(handler.type) for handler in child.handlers if handler.type is not None}
    return {name for name in names - caught if name.endswith("Error")}


def test_every_function_names_the_errors_that_it_raises() -> None:
    lacking = []
    for name, node, owners in ALL:
        if name.startswith(("cli.py", "studies/commands.py")):
            continue  # docstrings of commands are their help
        if isinstance(node, ast.ClassDef):
            constructors = [c for c in node.body if isinstance(c, ast.FunctionDef) and c.name == "__init__"]
            errors = set().union(*(raised(c) for c in constructors)) if constructors else set()
            text = texts(node, (*owners, *constructors))
        else:
            errors, text = raised(node), texts(node, owners)
        family = "GankitError|" if any(hasattr(known_errors, error) for error in errors) else ""
        lacking += [f"{name}: {error}" for error in sorted(errors) if not re.search(rf"\b({family}{error})\b", text)]
    assert not lacking
