"""Whose fault an error is, and that no token gets out with it."""

from __future__ import annotations

import pytest
import torch

from publisher.errors import InfrastructureFault, OutOfDisk, RequestFault, UnsupportedModel
from publisher.jobs.transitions import Blame
from worker.jobs.failures import failure_of, number_of, redacted, trace_of

TOKEN = "hf_very-secret"


@pytest.mark.parametrize("error", [RequestFault("bad"), UnsupportedModel("odd")])
def test_fault_of_the_request_is_its_own(error: Exception) -> None:
    assert failure_of(error, "fetch").blame is Blame.REQUEST


@pytest.mark.parametrize(
    "error",
    [
        InfrastructureFault("away"),
        OutOfDisk("full"),
        OSError("gone"),
        ConnectionError("reset"),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        KeyError("a mistake of ours"),
    ],
)
def test_everything_else_may_go_better_the_next_time(error: Exception) -> None:
    failure = failure_of(error, "align")
    assert failure.blame is Blame.INFRASTRUCTURE
    assert failure.stage == "align"


def test_lack_of_memory_says_what_to_make_smaller() -> None:
    failure = failure_of(torch.OutOfMemoryError("tried to allocate 2 GiB"), "align")
    assert failure.message == "out of memory: tried to allocate 2 GiB"
    assert "batch_tokens" in str(failure.way_out)


def test_way_out_stays_apart_from_the_message() -> None:
    failure = failure_of(RequestFault("folder changed.", way_out="Register it again."), "fetch")
    assert (failure.message, failure.way_out) == ("folder changed.", "Register it again.")


def test_tokens_are_blotted_out_of_messages_and_traces() -> None:
    error = ValueError(f"401 for url https://user:{TOKEN}@hub")
    trace = trace_of(error, [TOKEN])
    assert trace is not None
    assert TOKEN not in trace + failure_of(error, None, [TOKEN]).message
    assert "***@hub" in trace


def test_empty_secret_blots_out_nothing() -> None:
    assert redacted("abc", [""]) == "abc"


def test_error_in_words_needs_no_trace() -> None:
    assert trace_of(RequestFault("bad")) is None


def raised(key: str) -> Exception:
    try:
        return {}[key]
    except KeyError as error:
        return error


def raised_elsewhere() -> Exception:
    try:
        return {}["a"]
    except KeyError as error:
        return error


def test_an_unforeseen_error_is_one_sentence_with_a_number_that_the_log_has_too() -> None:
    error = raised("a")
    failure, trace = failure_of(error, "prune"), trace_of(error)
    assert failure.error_id == number_of(error)
    assert f"error {failure.error_id}" in failure.message
    assert failure.error_id in str(failure.way_out)
    assert trace is not None
    assert f"error {failure.error_id}" in trace
    for shown in (failure.message, str(failure.way_out)):
        assert "Traceback" not in shown
        assert __file__ not in shown


def test_a_library_s_stack_in_a_message_stays_in_the_log() -> None:
    failure = failure_of(ValueError("no such layer\nTraceback (most recent call last):\n  File x"), "prune")
    assert "no such layer" in failure.message
    assert "Traceback" not in failure.message


def test_the_number_is_the_error_s_and_its_place_s_whatever_its_values() -> None:
    assert number_of(raised("a")) == number_of(raised("b"))
    assert number_of(raised("a")) != number_of(raised_elsewhere())


@pytest.mark.parametrize(
    "error", [OSError("gone"), ConnectionError("reset"), MemoryError(), InfrastructureFault("away")]
)
def test_what_may_pass_has_no_number_and_keeps_its_tries(error: Exception) -> None:
    assert failure_of(error, "align").error_id is None
