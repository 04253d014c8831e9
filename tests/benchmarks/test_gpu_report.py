"""What the benchmarks for a GPU share: a device that is not there is refused, a figure that is not there is a dash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.benchmarks.gpu_report import in_mib, parser, peak_heading, predictions, write_results


@pytest.mark.parametrize("device", ["gpu", "meta", "cuda", "cuda:1"])
def test_a_device_that_is_not_there_is_refused_in_a_sentence(
    device: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as ended:
        parser(None).parse_args(["--work", "here", "--device", device])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert ("PyTorch sees no CUDA device." in told) is device.startswith("cuda")


def test_a_card_of_a_higher_number_than_there_are_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert parser(None).parse_args(["--work", "here", "--device", "cuda:0"]).device == "cuda:0"
    with pytest.raises(SystemExit):
        parser(None).parse_args(["--work", "here", "--device", "cuda:1"])


def test_only_those_that_print_predictions_take_them() -> None:
    given = ["--work", "here", "--device", "cpu", "--predicted", "file"]
    assert parser(None, predicted=True).parse_args(given).predicted == Path("file")
    with pytest.raises(SystemExit):
        parser(None).parse_args(given)


def test_a_prediction_is_found_by_its_row_and_of_the_same_size_alone(tmp_path: Path) -> None:
    path = tmp_path / "predicted.json"
    write_results(path, "predicted", "cpu", [{"benchmark": "user", "name": "base", "peak": 7}], tiny=True)
    assert json.loads(path.read_text())["tiny"] is True
    assert predictions(path, tiny=True).peak("user", "base") == 7
    assert predictions(path, tiny=True).peak("user", "other") is None
    assert predictions(path, tiny=False).peak("user", "base") is None
    assert predictions(None, tiny=True).peak("user", "base") is None


def test_damaged_predictions_are_refused(tmp_path: Path) -> None:
    (tmp_path / "predicted.json").write_text('{"rows": [{"ben')
    with pytest.raises(SystemExit) as ended:
        predictions(tmp_path / "predicted.json", tiny=False)
    assert ended.value.code == 2


def test_no_figure_is_a_dash_and_memory_is_called_what_it_is() -> None:
    assert (in_mib(None), in_mib(3 * 2**30)) == ("–", "3,072")
    assert (peak_heading("cuda:1"), peak_heading("cpu")) == ("peak MiB", "process MiB")
