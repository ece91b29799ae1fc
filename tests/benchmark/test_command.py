import json

import pytest

from pulse_exp.benchmark.command import main
from pulse_exp.benchmark.networks import BASELINE


def test_the_quick_benchmark_prints_its_tables_and_writes_json(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PULSE_EXP_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "benchmark.json"
    words = ["--quick", "--resolution", "32", "--repeats", "1", "--batches", "1,2"]
    assert main([*words, "--faces", "2", "--steps", "2", "--json", str(file)]) == 0
    out = capsys.readouterr().out
    for title in ("counted", "measured", "as the batch grows", "A search's own share"):
        assert title in out
    report = json.loads(file.read_text())
    assert next(iter(report["steps"])) == BASELINE
    assert set(report["steps"]) == {"plain", "toy", "toy bf16"}
    assert set(report["batches"]["toy"]) == {"1", "2"}
    assert report["faces"]["toy"]["faces"] == 2
    assert all(row["floor"] > 0 for row in report["counts"].values())
    assert not (tmp_path / "cache").exists(), "random networks leave nothing in the cache"


def test_an_unknown_generator_is_one_line_and_exit_status_2(capsys):
    assert main(["--generators", "biggan", "--quick"]) == 2
    assert "no benchmark of 'biggan'" in capsys.readouterr().err


def test_mistakes_are_told_before_anything_is_measured(tmp_path, capsys):
    assert main(["--quick", "--json", str(tmp_path / "none" / "benchmark.json")]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--quick", "--batches", "1,two"])
    assert "invalid sizes value: '1,two'" in capsys.readouterr().err
