import json
import random

import pytest

from pulse_exp.errors import UserError
from pulse_exp.results import command_of, load_curves, load_results, natural_key
from tests.synthetic_runs import record, write_curves, write_run, write_study


def test_reads_a_multirun_folder_with_derived_numbers(tmp_path):
    results = load_results([write_study(tmp_path / "study", pictures=False)])
    frame = results.frame
    assert len(frame) == 4 * 4 * 2
    assert results.account.failed == 1
    assert set(frame.loc[frame["status"] == "failed", "solved"]) == {0.0}
    solved = frame[frame["status"] == "solved"].iloc[0]
    expected = solved["seconds"] * solved["solved_step"] / solved["steps"]
    assert solved["seconds_to_solve"] == pytest.approx(expected)
    assert results.account.lines() == ["32 records used of 32 lines in 4 files; 1 of them failed."]


def test_any_order_and_repetition_of_the_arguments_gives_the_same_frame(tmp_path):
    study = write_study(tmp_path / "study", pictures=False)
    whole = load_results([study])
    parts = [study / str(n) for n in range(4)] + [study / "2" / "records.jsonl"]
    random.Random(0).shuffle(parts)
    again = load_results(parts)
    assert whole.frame.equals(again.frame)
    assert whole.account == again.account


def test_identical_duplicates_count_once_and_are_said(tmp_path):
    rows = [record("a"), record("b")]
    write_run(tmp_path / "one", rows)
    write_run(tmp_path / "copy", rows)
    results = load_results([tmp_path])
    assert len(results.frame) == 2
    assert "2 identical duplicates left out." in results.account.lines()


def test_of_conflicting_rows_the_last_complete_one_is_used(tmp_path):
    run = tmp_path / "run-2"
    write_run(run, [record("a", psnr=10.0), record("a", psnr=11.0), record("a", status="failed")])
    write_run(tmp_path / "run-10", [record("a", psnr=12.0, niqe=None)])
    results = load_results([tmp_path])
    assert results.frame["psnr"].tolist() == [11.0]
    (line,) = [line for line in results.account.lines() if "differing" in line]
    assert line.index("run-2/records.jsonl:2") < line.index("and not") < line.index("run-10")
    assert "1 failed attempt left out: the same search was run again." in results.account.lines()


def test_a_failure_that_was_searched_again_is_no_conflict(tmp_path):
    rows = [record("a", status="failed", reason="NaN"), record("a"), record("b", status="failed")]
    account = load_results([write_run(tmp_path, rows)]).account
    assert (account.used, account.failed, account.retried) == (2, 1, 1)
    assert account.conflicting == []


def test_unreadable_lines_are_named_by_file_and_line(tmp_path):
    run = write_run(tmp_path / "run", [record("a")])
    path = run / "records.jsonl"
    whole = json.dumps(record("b"))
    path.write_bytes(
        path.read_bytes()
        + b"\xff\xfe not json\n\n[1, 2]\n"
        + json.dumps({"image": "c", "restart": 0}).encode()
        + b"\n"
        + json.dumps(record("d", status="lost")).encode()
        + b"\n"
        + whole[: len(whole) // 2].encode()
    )
    results = load_results([run])
    assert results.frame["image"].tolist() == ["a"]
    reasons = [line.split("records.jsonl:")[1] for line in results.account.unreadable]
    assert reasons == [
        "2: not JSON",
        "4: not a JSON object",
        "5: no config_hash, status",
        "6: status 'lost' is none of solved, unsolved, failed",
        "7: cut short",
    ]
    assert results.account.lines()[0] == "1 record used of 6 lines in 1 file."


def test_a_last_line_without_newline_is_used_when_it_is_whole(tmp_path):
    run = write_run(tmp_path, [record("a"), record("b")])
    path = run / "records.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert len(load_results([path]).frame) == 2


def test_mixed_schemas_and_versions_are_said(tmp_path):
    old = record("a", config_hash="old", versions="python 3.11, torch 2.4.0", git_commit="111")
    for key in ("ssim", "niqe"):
        del old[key]
    write_run(tmp_path / "old", [old])
    refined = record("b", lr_mse_refined=1e-4, lr_blur=0.0)
    write_run(tmp_path / "new", [record("a"), refined, record("c", status="failed")])
    lines = load_results([tmp_path]).account.lines()
    assert any(line.startswith("niqe, ssim are missing from 1 of the 3 records") for line in lines)
    assert not any("lr_" in line for line in lines)
    assert "Mixed torch: 2.4.0 (1 record), 2.5.0 (3 records)." in lines
    assert "Mixed git_commit: 111 (1 record), abc1234 (3 records)." in lines


def test_a_long_account_is_shortened(tmp_path):
    run = write_run(tmp_path, [record("a")])
    path = run / "records.jsonl"
    path.write_bytes(path.read_bytes() + b"x\n" * 25)
    lines = load_results([run]).account.lines()
    assert len(lines) == 12
    assert "15 more" in lines[-1]


def test_resolved_settings_appear_under_dotted_names(tmp_path):
    run = write_run(tmp_path, [record("a")], ["prior=none"])
    config = "seed: 3\noptimizer:\n  name: adam\n  betas: [0.9, 0.99]\n  learning_rate: 0.1\n"
    (run / ".hydra" / "config.yaml").write_text(config)
    row = load_results([run]).frame.iloc[0]
    assert row["optimizer.learning_rate"] == 0.1
    assert row["optimizer.betas"] == "[0.9, 0.99]"
    assert row["optimizer"] == "adam"
    assert row["seed"] == 0  # the record's, not the config's


def test_missing_and_empty_places_are_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="no such file or folder"):
        load_results([tmp_path / "nowhere"])
    with pytest.raises(UserError, match=r"no records\.jsonl in this folder or below"):
        load_results([tmp_path])
    (tmp_path / "records.jsonl").write_text("oops")
    with pytest.raises(UserError, match=r"no usable record .*records\.jsonl:1: cut short"):
        load_results([tmp_path])


def test_curves_follow_their_rows(tmp_path):
    rows = [record("b"), record("a"), record("a", 1, status="failed")]
    run = write_run(tmp_path, rows)
    write_curves(run, [*rows, record("stranger")])
    with (run / "curves.jsonl").open("a") as file:
        stepless = {"image": "a", "restart": 1, "config_hash": "c0", "step": []}  # a baseline's
        file.write(json.dumps(stepless) + "\n")
        file.write('{"image": "a", "rest')
    frame = load_results([run]).frame
    curves = load_curves(frame)
    assert [frame.at[curve["row"], "image"] for curve in curves] == ["a", "b"]
    assert curves[0]["lr_mse"][-1] == pytest.approx(0.0008, abs=1e-3)


def test_the_command_of_a_run_is_quoted_for_a_shell(tmp_path):
    run = write_run(tmp_path, [record("a")], ["prior=sphere+cross", '"data.folder=my faces"'])
    assert command_of(run) == "python run.py prior=sphere+cross 'data.folder=my faces'"
    assert command_of(tmp_path / "elsewhere") is None


def test_natural_order():
    values = ["run-10", "none", 16, "run-2", 8.0, "run-2b"]
    assert sorted(values, key=natural_key) == [8.0, 16, "none", "run-2", "run-2b", "run-10"]


def test_what_is_not_recorded_comes_last_and_disturbs_no_order():
    pairs = [(float("nan"), 8), (float("nan"), 64), (1.0, 16), (None, 32), (float("nan"), 16)]
    keys = [tuple(map(natural_key, pair)) for pair in pairs]
    assert [pairs[keys.index(key)][1] for key in sorted(keys)] == [16, 8, 16, 32, 64]
