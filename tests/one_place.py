"""`python -m tests.one_place`, in `make lint`: tenants' tables are queried in publisher/store and publisher/jobs alone.

There every statement stands beside its like, and a reader sees which tenant it is for; what is asked elsewhere would be
the one that forgets. publisher/jobs works on a job by its id, whosever it is, after somebody was let in to it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: where queries live
PLACES = ("publisher/store", "publisher/jobs")
#: what statements are made of
_BUILDERS = frozenset(
    {"select", "update", "delete", "insert", "text", "union", "union_all", "exists", "func", "literal_column", "table"}
)
#: methods that run a statement or narrow one down; torch has a `where` of its own
_METHODS = frozenset({"scalar", "scalars", "execute", "get_one", "exec_driver_sql", "where", "order_by", "filter_by"})
#: methods of a session that other things have, too
_OF_SESSIONS = frozenset({"get", "delete", "query"})
_SESSIONS = frozenset({"session", "rows", "connection"})


def faults(root: Path = ROOT) -> list[str]:
    """`file:line: what`, for every query in the wrong place."""
    files = [path for room in ("publisher", "worker") for path in sorted((root / room).rglob("*.py"))]
    return [
        f"{path.relative_to(root)}:{line}: {what} belongs into publisher/store"
        for path in files
        if not str(path.relative_to(root)).startswith(PLACES)
        for line, what in _queries(ast.parse(path.read_text()))
    ]


def _queries(tree: ast.Module) -> Iterator[tuple[int, str]]:
    tables = _imported(tree, "publisher.store.models")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, f"import {each.name}") for each in node.names if _is_sqlalchemy(each.name))
        elif isinstance(node, ast.ImportFrom) and _is_sqlalchemy(node.module or ""):
            yield from ((node.lineno, f"{each.name}()") for each in node.names if each.name in _BUILDERS)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and _asks(node, node.func, tables):
            yield node.lineno, f".{node.func.attr}()"


def _asks(call: ast.Call, method: ast.Attribute, tables: frozenset[str]) -> bool:
    receiver = method.value.id if isinstance(method.value, ast.Name) else ""
    if method.attr in _METHODS:
        return receiver not in {"torch", "np"}
    names_a_table = any(isinstance(given, ast.Name) and given.id in tables for given in call.args)
    return method.attr in _OF_SESSIONS and (receiver in _SESSIONS or names_a_table)


def _imported(tree: ast.Module, module: str) -> frozenset[str]:
    found = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{module}.")
    ]
    return frozenset(each.asname or each.name for node in found for each in node.names)


def _is_sqlalchemy(module: str) -> bool:
    return module.partition(".")[0] == "sqlalchemy"


if __name__ == "__main__":
    found = faults()
    print("\n".join(found) or "queries live in one place")
    sys.exit(bool(found))
