"""One file per kind of thing: a word of an enum names the module that declares what it is.

A criterion `taylor` is declared by `TAYLOR` in `publisher/recipe/criteria/taylor.py`, and so are optimizers. Everything
that has to know about one asks for its declaration, so a new one is a new file and a new word of the enum. What runs is
named in it as `module:name` and is looked up by whoever runs it: declarations are read where there is no torch.
"""

from __future__ import annotations

from enum import StrEnum
from importlib import import_module
from typing import TypeVar

Spec = TypeVar("Spec")


class NotDeclared(LookupError):
    """A word of an enum without its declaration, or one that does not serve what is asked of it."""


def declaration(package: str, word: StrEnum, kind: type[Spec]) -> Spec:
    """The `kind` that module `package.word` declares as `WORD`. Raises NotDeclared naming what is missing."""
    module, constant = f"{package}.{word.value}", word.value.upper()
    wanted = f"{constant} = {kind.__name__}(…)"
    try:
        found = getattr(import_module(module), constant, None)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise NotDeclared(
            f"{type(word).__name__} {word.value} is not declared: add {module.replace('.', '/')}.py with {wanted}"
        ) from error
    if not isinstance(found, kind):
        raise NotDeclared(f"{module} declares {word.value} nowhere: add {wanted}")
    if getattr(found, "name", None) is not word:
        raise NotDeclared(f"{module} is about {word.value}, and its {constant} declares another name")
    return found
