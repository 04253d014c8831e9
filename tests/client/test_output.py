"""Answers in three forms, and what is not in them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from publisher.client.output import Column, Form, Output, field, moment, output_options

ITEMS = [{"id": "job_1", "note": "[bold]no markup[/bold] " + "long " * 60}, {"id": "job_2", "note": None}]
COLUMNS = (Column("id", field("id")), Column("note", field("note")), Column("empty", lambda item: ""))


def test_a_table_that_goes_to_a_file_has_no_colours_no_edge_and_no_empty_columns(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Output().items(ITEMS, COLUMNS, nothing="None.")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["id", "note"]
    assert lines[1].rstrip() == f"job_1  {ITEMS[0]['note']}".rstrip()
    assert len(lines) == 3
    assert not any("\x1b" in line for line in lines)


def test_json_of_a_list_is_a_line_for_each_item_and_of_one_a_document(capsys: pytest.CaptureFixture[str]) -> None:
    Output(Form.JSON).items(ITEMS, COLUMNS, nothing="None.")
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == ITEMS
    Output(Form.JSON).item(ITEMS[1], COLUMNS)
    assert json.loads(capsys.readouterr().out) == ITEMS[1]


def test_quiet_is_what_names_things(capsys: pytest.CaptureFixture[str]) -> None:
    Output(Form.QUIET).items(ITEMS, COLUMNS, nothing="None.")
    Output(Form.QUIET).item({"path": "config.json"}, COLUMNS, named_by="path")
    assert capsys.readouterr().out.split() == ["job_1", "job_2", "config.json"]


def test_times_are_those_of_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    assert moment(1_700_000_000) == "2023-11-15 03:43"
    monkeypatch.undo()
    time.tzset()
    assert moment(None) == ""


def test_a_command_keeps_its_own_words() -> None:
    def command(output: Output) -> str:
        """Say the form."""
        return output.form

    wrapped = output_options(command)
    assert wrapped.__doc__ == "Say the form."
    assert wrapped(as_json=True, quiet=False) == Form.JSON


def test_names_of_commands_are_completed_without_loading_them() -> None:
    words = {"_PUBLISHER_COMPLETE": "bash_complete", "COMP_WORDS": "publisher j", "COMP_CWORD": "1"}
    command = [sys.executable, "-X", "importtime", "-m", "publisher.client.main"]
    done = subprocess.run(command, env=os.environ | words, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "plain,jobs\n"
    assert "publisher.client.commands" not in done.stderr
