import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import pulse_exp.generators
from pulse_exp.complaints import complaints
from pulse_exp.errors import UserError
from pulse_exp.images import read_image
from pulse_exp.measure import missing_of, run
from pulse_exp.metrics.diversity import mean_distance_to_others
from pulse_exp.pipeline import run as search
from pulse_exp.records import RecordFile
from tests.compose import SMALL, job


def searched(folder: Path, *overrides: str) -> None:
    config, words = job(*SMALL, "data=generated", "data.count=2", "metrics=[]", *overrides)
    search(config, words, folder)
    (folder / ".hydra").mkdir(exist_ok=True)
    from omegaconf import OmegaConf

    OmegaConf.save(config, folder / ".hydra" / "config.yaml")


def measured(folder: Path, *names: str) -> tuple[int, list[dict]]:
    config, words = job("task=measure", f"results={folder}", f"metrics=[{','.join(names)}]")
    code = run(config, words, folder / "unused")
    return code, rows_of(folder)


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    searched(folder, "search.restarts=2")
    return folder


def test_measured_later_is_measured_at_once(finished: Path, tmp_path: Path, monkeypatch):
    searched(tmp_path / "other", "search.restarts=2", "metrics=[psnr,lr_psnr,diversity_rmse]")
    before = rows_of(finished)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("measuring needs no generator")

    monkeypatch.setattr(pulse_exp.generators, "load", refuse)
    code, rows = measured(finished, "psnr", "lr_psnr", "diversity_rmse")
    assert code == 0
    for row, old, other in zip(rows, before, rows_of(tmp_path / "other"), strict=True):
        assert {**old, **{k: row[k] for k in ("psnr", "lr_psnr", "diversity_rmse")}} == row
        # The pictures are rounded to 8 bits, the search's own results were not: in their means over
        # 64 pixels that is 0.00014, a twentieth of what differs at an lr_psnr of 52 dB. Result and
        # truth so rounded differ by 2.6e-6 more, a hundredth of what differs at a psnr of 36 dB.
        assert row["psnr"] == pytest.approx(other["psnr"], abs=0.1)
        assert row["lr_psnr"] == pytest.approx(other["lr_psnr"], abs=0.1)
        assert row["diversity_rmse"] == pytest.approx(other["diversity_rmse"], abs=2e-4)


def test_measuring_again_changes_no_byte(finished: Path):
    measured(finished, "psnr", "diversity_rmse")
    before = (finished / "records.jsonl").read_bytes()
    measured(finished, "psnr", "diversity_rmse")
    assert (finished / "records.jsonl").read_bytes() == before


def test_diversity_follows_restarts_that_were_added(finished: Path):
    measured(finished, "diversity_rmse")
    searched(finished, "search.restarts=3")
    _, rows = measured(finished, "diversity_rmse")
    mine = [row for row in rows if row["image"] == "generated00000"]
    pictures = [read_image(finished / "sr" / f"generated00000-{r['restart']}.png") for r in mine]
    flat = torch.stack(pictures).flatten(1)
    wanted = mean_distance_to_others(flat) / flat.shape[1] ** 0.5
    assert len(mine) == 3
    assert [row["diversity_rmse"] for row in mine] == pytest.approx(wanted.tolist(), rel=1e-6)


def test_what_cannot_be_measured_is_null_with_its_reason(finished: Path):
    (finished / "sr" / "generated00001-1.png").unlink()
    code, rows = measured(finished, "niqe", "ssim")
    assert code == 0
    assert all(row["niqe"] is None for row in rows)
    assert "too small" in missing_of(rows[0])["niqe"]
    assert "ssim" not in missing_of(rows[0])
    assert rows[2]["ssim"] is None
    assert "generated00001-1.png" in missing_of(rows[2])["ssim"]
    searched(finished, "search.restarts=2", "search.eps=0.001")  # finds nothing to do
    Image.new("RGB", (64, 64)).save(finished / "sr" / "generated00001-1.png")
    _, rows = measured(finished, "ssim")
    assert rows[2]["ssim"] is not None
    assert set(missing_of(rows[2])) == {"niqe"}, "what is there now is no longer missing"


def test_other_lines_keep_their_bytes_and_order(finished: Path):
    path = finished / "records.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    failed = json.dumps({**json.loads(lines[0]), "status": "failed", "lr_mse": None}).encode()
    path.write_bytes(failed + b"\n" + b"".join(lines) + b'{"image": "half')
    measured(finished, "psnr")
    after = path.read_bytes().splitlines(keepends=True)
    assert after[0] == failed + b"\n"
    assert [json.loads(x)["image"] for x in after[1:]] == [json.loads(x)["image"] for x in lines]
    assert all(json.loads(line)["psnr"] for line in after[1:])


def test_a_row_added_meanwhile_is_kept(finished: Path, monkeypatch):
    file, extra = RecordFile(finished / "records.jsonl"), {"image": "new", "restart": 0}
    change = RecordFile.change

    def add_then_change(self: RecordFile, changed) -> None:
        file.append([{**extra, "config_hash": "x", "status": "solved"}])
        change(self, changed)

    monkeypatch.setattr(RecordFile, "change", add_then_change)
    _, rows = measured(finished, "psnr")
    assert [row["image"] for row in rows[-2:]] == ["generated00001", "new"]
    assert rows[0]["psnr"] is not None


def test_a_run_without_its_configuration_is_said_and_does_not_stop_the_others(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    searched(tmp_path / "later", "seed=1")
    (finished / ".hydra" / "config.yaml").unlink()
    config, words = job("task=measure", f"results={tmp_path}", "metrics=[psnr]")
    assert run(config, words, tmp_path / "unused") == 1
    assert "config.yaml" in capsys.readouterr().out
    assert all(row["psnr"] for row in rows_of(tmp_path / "later"))


def test_random_measurements_have_no_input_to_compare_with(tmp_path: Path):
    searched(tmp_path, "downscaler=gaussian_measurements", "downscaler.factor=8", "data.count=1")
    _, rows = measured(tmp_path, "psnr", "lr_psnr")
    assert rows[0]["psnr"] is not None
    assert rows[0]["lr_psnr"] is None
    assert "not a picture" in missing_of(rows[0])["lr_psnr"]


def test_reasons_survive_their_own_punctuation():
    text = "niqe: too small: it needs blocks; at least two; fid: no weights"
    assert missing_of({"missing": text}) == {
        "niqe": "too small: it needs blocks; at least two",
        "fid": "no weights",
    }


@pytest.mark.parametrize("task", ["measure", "report"])
def test_a_task_on_results_needs_them(task: str, tmp_path: Path):
    assert any("results=DIR" in line for line in complaints(job(f"task={task}")[0]))
    with pytest.raises(UserError, match="nothing_here"):
        run(*job("task=measure", "results=nothing_here"), tmp_path)


def test_the_report_task_says_where_the_page_is(finished: Path, capsys):
    from pulse_exp.report import run as report

    assert report(*job("task=report", f"results={finished}"), finished) == 0
    assert (finished / "report.html").is_file()
    assert "report.html" in capsys.readouterr().out
