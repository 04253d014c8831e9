"""Every reader of a model's files stands behind the border that blames the request for what is wrong with them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import worker

ROOT = Path(worker.__file__).parent
READERS = {"from_pretrained", "safe_open", "load_file", "read_file_header"}
BORDERS = {"reading", "tokenizer_faults", "file_faults", "_reading"}
#: modules that read only what a stage here wrote, and checks of families, which make their own models
OWN_FILES = {
    "alignment/checkpoint_selection.py",
    "alignment/state.py",
    "families",
    "probe/probe.py",
    "quantization/nf4.py",
    "quantization/sensitivity.py",
    "quantization/streamed.py",
    "stages/align/work.py",
    "stages/prune/stage.py",
    "stages/prune/weights.py",
    "text/token_cache.py",
    "card/usage.py",
    "models/device.py",
}
#: makes its own border, since the tokenizers library raises no class of its own
TOKENIZER = "text/tokenizer.py"


def calls_without_border(tree: ast.AST, inside: bool = False) -> Iterator[int]:
    for node in ast.iter_child_nodes(tree):
        within = inside
        if isinstance(node, ast.With):
            within |= any(name_of(item.context_expr) in BORDERS for item in node.items)
        if isinstance(node, ast.Call) and name_of(node) in READERS and not within:
            yield node.lineno
        yield from calls_without_border(node, within)


def name_of(expression: ast.expr) -> str:
    called = expression.func if isinstance(expression, ast.Call) else expression
    return called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")


def readers() -> Iterator[tuple[str, list[int]]]:
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name != TOKENIZER and name not in OWN_FILES and name.partition("/")[0] not in OWN_FILES:
            yield name, list(calls_without_border(ast.parse(path.read_text())))


def test_no_reader_of_the_request_s_files_lacks_the_border() -> None:
    lacking = {name: lines for name, lines in readers() if lines}
    assert not lacking, "put them within `reading(…)`, or name the module among OWN_FILES"
