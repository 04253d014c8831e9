"""Recipes as each version of this package stored them, word for word (history.jsonl): whatever a database may hold.

They were written by the versions themselves: for each, recipes that together have every field, and every word of a
field, that was new with it. Whoever changes the recipe's fields adds some that the version before wrote.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Stored:
    """`version`: of publisher.recipe.versions."""

    version: int
    recipe: dict[str, Any]


HISTORY = [Stored(**json.loads(line)) for line in Path(__file__).with_name("history.jsonl").read_text().splitlines()]

#: of a recipe that was accepted before the teacher's top k could be kept; no version since then can do both
IRRECONCILABLE = {"teacher_top_k": 64, "hidden_states_weight": 1.0}
ASKED = next(each.recipe for each in HISTORY if each.version == 3 and each.recipe["alignment"])
UNREADABLE = Stored(3, ASKED | {"alignment": ASKED["alignment"] | IRRECONCILABLE})
#: with a field that is no more
REMOVED = Stored(11, HISTORY[-1].recipe | {"pruning": HISTORY[-1].recipe["pruning"] | {"schedule": "cubic"}})
#: of a version that is still to come
NEWER = Stored(99, HISTORY[-1].recipe)
