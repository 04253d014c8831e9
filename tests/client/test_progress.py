"""Lines where there is no terminal: rare, and with all that a bar would show."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from publisher.client import progress
from publisher.client.progress import LINE_SECONDS, Bars, Lines, bytes_counted, loss_note, shown_on, working


def on_a_log() -> tuple[Console, io.StringIO]:
    log = io.StringIO()
    return Console(file=log, width=40), log


def test_ten_minutes_are_a_line_every_thirty_seconds_with_step_loss_and_remaining_time() -> None:
    console, log = on_a_log()
    with Lines(console) as lines:
        lines.started("align", 0)
        for second in range(601):
            lines.note("align", f"step {second}, loss {3 - second / 600:.3f}")
            lines.progress("align", second * 1000, 600_000, "tokens", second)
        lines.ended("align", "done in 600.0 s")
    written = log.getvalue().splitlines()
    assert len(written) == 600 / LINE_SECONDS + 1
    assert written[0] == "align      30,000/600,000 tokens, step 30, loss 2.950, 9:30 left"
    assert written[-1] == "align      done in 600.0 s"


def test_a_piece_that_is_soon_over_is_one_line() -> None:
    console, log = on_a_log()
    with Lines(console) as lines:
        lines.started("prune", 0)
        for second in range(20):
            lines.progress("prune", second, 20, "tensors", second)
        lines.ended("prune", "done in 20.0 s")
    assert log.getvalue() == "prune      done in 20.0 s\n"


def test_what_was_done_before_a_job_went_on_does_not_count_as_speed() -> None:
    console, log = on_a_log()
    lines = Lines(console)
    lines.started("align", 0)
    lines.progress("align", 5000, 10_000, "tokens", 0)
    lines.progress("align", 5100, 10_000, "tokens", 100)
    assert "1:21:40 left" in log.getvalue(), "4,900 tokens at one in a second"


def test_another_unit_is_another_speed() -> None:
    console, log = on_a_log()
    lines = Lines(console)
    lines.progress("align", 0, 30, "layers", 0)
    lines.progress("align", 30, 30, "layers", 10)
    lines.progress("align", 0, 1000, "tokens", 20)
    lines.progress("align", 100, 1000, "tokens", 40)
    assert log.getvalue() == "align      100/1,000 tokens, 3:00 left\n"


def test_a_line_is_not_broken_at_the_width_that_a_file_does_not_have() -> None:
    console, log = on_a_log()
    Lines(console).say("[bold] is said " + "as it is " * 20)
    assert log.getvalue().count("\n") == 1
    assert log.getvalue().startswith("[bold] is said as it is")


def test_a_terminal_gets_bars_and_a_file_gets_lines() -> None:
    assert isinstance(shown_on(Console(file=io.StringIO(), force_terminal=True)), Bars)
    assert isinstance(shown_on(Console(file=io.StringIO(), force_terminal=False)), Lines)


def test_a_bar_shows_amount_note_and_outcome() -> None:
    terminal = io.StringIO()
    with Bars(Console(file=terminal, force_terminal=True, width=120)) as bars:
        bars.started("align", 0)
        bars.progress("align", 500, 1000, "tokens", 1)
        bars.note("align", "step 1, loss 2.000")
        bars.ended("align", "finished in 2.0 s")
    last = next(line for line in reversed(terminal.getvalue().splitlines()) if "align" in line)
    assert "1,000/1,000 tokens" in last
    assert "finished in 2.0 s" in last


def test_work_without_an_end_is_named_when_it_is_done() -> None:
    console, log = on_a_log()
    with working(console, "start the service"):
        pass
    assert log.getvalue() == "start the service done\n"


def test_work_that_failed_is_not_called_done() -> None:
    console, log = on_a_log()
    with pytest.raises(OSError, match="no"), working(console, "text"):
        raise OSError("no")
    assert log.getvalue() == ""


@pytest.mark.parametrize(
    ("name", "value", "note"),
    [
        ("loss", 2.5, "step 7, loss 2.500"),
        ("probe_loss", 1.0, "step 7, probe loss 1.000"),
        ("loss", None, "step 7, loss not finite"),
        ("learning_rate", 0.1, None),
    ],
)
def test_losses_are_worth_a_note(name: str, value: float | None, note: str | None) -> None:
    assert loss_note(name, 7, value) == note


@pytest.mark.parametrize(("total", "said"), [(4_000_000, "3.0 MB/4.0 MB, 0:10 left"), (None, "3.0 MB")])
def test_bytes_that_are_counted_are_told_on_standard_error_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, total: int | None, said: str
) -> None:
    clock = iter((0.0, 10.0, 40.0))
    # of this module alone: other threads of this process read the clock, too
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with bytes_counted("compare", total) as count:
        count(0)
        count(3_000_000)
    assert capsys.readouterr() == ("", f"compare    {said}\n")
