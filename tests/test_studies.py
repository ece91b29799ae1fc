"""Every study at size=smoke, with the toy generator; the full grids are only composed."""

import json
import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict

from pulse_exp import studies
from pulse_exp.complaints import complaints
from pulse_exp.images import read_image
from pulse_exp.naming import folder_name
from pulse_exp.pipeline import run
from pulse_exp.studies import main
from tests.compose import CONF, job, prepare

STUDIES = sorted(path.stem for path in (CONF / "study").glob("*.yaml"))


def sweep(study: str, size: str) -> tuple[DictConfig, list[list[str]]]:
    """The sweep's configuration and the overrides of each of its jobs, as Hydra makes them."""
    prepare()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [f"study={study}", f"size={size}"]
        overrides += ["data.root=photos"] if size != "smoke" else []
        config = compose("config", overrides=overrides, return_hydra_config=True)
    HydraConfig.instance().cfg = None
    with open_dict(config):
        config.hydra.overrides.task = overrides
    params = OmegaConf.to_container(config.hydra.sweeper.params, resolve=True)
    given = OverridesParser.create().parse_overrides([f"{k}={v}" for k, v in params.items()])
    jobs = BasicSweeper.split_arguments(given, max_batch_size=None)[0]
    return config, [list(one) for one in jobs]


def smoke(study: str, folder: Path) -> str:
    config, jobs = sweep(study, "smoke")
    for overrides in jobs:
        job_config, words = job(*overrides)
        path = folder / folder_name(",".join(overrides))
        run(job_config, words, path)
        OmegaConf.save(job_config, _made(path / ".hydra") / "config.yaml")
    config.hydra.sweep.dir = str(folder)
    OmegaConf.save(config, folder / "multirun.yaml")
    instantiate(config.hydra.callbacks.study).on_multirun_end(config)
    return (folder / "study.md").read_text()


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize("study", STUDIES)
def test_smoke_ends_with_tables_and_figures(
    study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Saving takes most of the time; the next test does it.
    monkeypatch.setattr(studies, "save_figure", lambda figure, stem: [stem])
    page = smoke(study, tmp_path)
    assert f"study={study}" in page
    assert "| " in page
    left_out = re.findall(r"\*Left out: (.*)\*", page)
    allowed = "note_ethnicity|note_gender|[Nn]one of these records has"
    assert all(re.search(allowed, reason) for reason in left_out), left_out


def test_the_page_of_a_finished_study_is_written_again(tmp_path: Path):
    page = smoke("average_of_solutions", tmp_path)
    for figure in re.findall(r"\]\((figures/.*?)\)", page):
        assert (tmp_path / figure).is_file()
    (tmp_path / "study.md").unlink()
    assert main([str(tmp_path)]) == 0
    assert (tmp_path / "study.md").read_text() == page
    check_averages(tmp_path)


@pytest.mark.parametrize("size", ["small", "full"])
@pytest.mark.parametrize("study", STUDIES)
def test_the_last_job_of_every_size_is_sound(study: str, size: str, tmp_path: Path):
    config, jobs = sweep(study, size)
    assert config.hydra.sweep.dir == f"results/{study}-{size}"
    assert complaints(job(*jobs[-1], f"data.root={tmp_path}")[0]) == []
    for override in {override for overrides in jobs for override in overrides}:
        group, _, names = override.partition("=")
        if (CONF / group).is_dir():
            for name in names.strip("[]").split(","):
                assert (CONF / group / f"{name}.yaml").is_file(), override


def test_a_folder_that_is_no_study_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def check_averages(tmp_path: Path) -> None:
    """Averages are means of the restarts within eps, in disjoint groups, measured as searches."""
    searched = next(path.parent for path in tmp_path.glob("*/records.jsonl"))
    averages = sorted((tmp_path / "averages").iterdir())
    assert [path.name.rpartition("-")[2] for path in averages] == ["1", "2"]
    rows = [json.loads(x) for x in (averages[1] / "records.jsonl").read_text().splitlines()]
    assert [(r["image"][-1], r["restart"], r["averaged"]) for r in rows] == [
        ("0", 0, 2), ("0", 1, 2), ("1", 0, 2), ("1", 1, 2)
    ]  # fmt: skip
    pictures = [read_image(searched / "sr" / f"generated00000-{r}.png") for r in (2, 3)]
    mean = read_image(averages[1] / "sr" / "generated00000-1.png")
    assert (mean - (pictures[0] + pictures[1]) / 2).abs().max() <= 0.5 / 255 + 1e-6
    truth = read_image(averages[1] / "hr" / "generated00000.png")
    error = (mean - truth).square().mean().log10().item() * -10
    assert rows[1]["psnr"] == pytest.approx(error, abs=1e-3)
    assert "seconds" not in rows[0]
