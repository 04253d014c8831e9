"""Twelve who register one new model wait for one process, not for twelve."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from publisher.families.shared_answers import SharedAnswers

_COUNTING = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from publisher.families.describe import describe
started = []
sys.addaudithook(lambda event, arguments: started.append(event) if event == "subprocess.Popen" else None)
config = json.loads(sys.stdin.read())
with ThreadPoolExecutor(4) as threads:
    found = list(threads.map(describe, [config] * 4))
assert all(geometry == found[0] for geometry in found)
assert "torch" not in sys.modules
print(len(started))
"""


def test_one_process_looks_at_a_model_that_many_register_at_once() -> None:
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 64,
    }
    command = [sys.executable, "-c", _COUNTING]
    done = subprocess.run(command, input=json.dumps(config), capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "1", done.stderr


def test_different_questions_are_worked_on_one_at_a_time_and_each_once() -> None:
    under_way, most, asked = set[str](), [0], list[str]()

    def work(question: str) -> str:
        under_way.add(question)
        asked.append(question)
        most[0] = max(most[0], len(under_way))
        under_way.discard(question)
        return question.upper()

    shared = SharedAnswers(work, kept=64)
    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(shared.answer, "abc" * 4)) == list("ABC" * 4)
    assert sorted(asked) == ["a", "b", "c"]
    assert most == [1]


def test_a_failure_is_not_kept() -> None:
    tries = list[str]()

    def work(question: str) -> str:
        tries.append(question)
        if len(tries) == 1:
            raise OSError("no memory")
        return "answer"

    shared = SharedAnswers(work, kept=64)
    with pytest.raises(OSError, match="no memory"):
        shared.answer("a")
    assert shared.answer("a") == "answer"


def test_only_the_last_answers_are_kept() -> None:
    asked = list[str]()
    shared = SharedAnswers(lambda question: asked.append(question) or question, kept=2)  # type: ignore[func-returns-value]
    for question in "abcabc":
        shared.answer(question)
    assert asked == list("abcabc")
