"""Sweeps on a real Slurm, started here; run by `python -m pytest -m slurm tests/slurm`."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_sweeps import TINY, Command, results, run

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cluster of this machine, for as long as the tests of this file run."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="extra slurm")
    missing = [name for name in ("slurmctld", "slurmd", "munged") if not shutil.which(name)]
    if missing or os.geteuid() != 0:
        pytest.skip(f"no Slurm can be started here: {', '.join(missing) or 'not root'}")
    folder = tmp_path_factory.mktemp("slurm")
    with (folder / "log").open("w") as log:
        cluster = subprocess.Popen(
            [str(Path(__file__).with_name("cluster.sh")), str(folder)], stdout=log, stderr=log
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        deadline = time.monotonic() + 60
        while "ready\n" not in (log := (folder / "log").read_text()):
            if cluster.poll() is not None or time.monotonic() > deadline:
                cluster.terminate()
                pytest.skip(f"Slurm does not start here: {log[-300:]}")
            time.sleep(0.2)
        yield
        subprocess.run(["scancel", "--user=root"], check=False)
        time.sleep(2)
    cluster.terminate()
    cluster.wait()


ONE_CORE = ["hydra.launcher.gpus_per_node=null", "hydra.launcher.cpus_per_task=1"]
ONE_CORE += ["hydra.launcher.mem_gb=1", "hydra/launcher=slurm"]


def test_shards_run_as_jobs_and_go_on_after_they_were_requeued(slurm: None, tmp_path: Path):
    work = [*TINY, "search.steps=2000", "data.count=4", "trainer.checkpoint_seconds=1"]
    code, printed = run(*work, f"hydra.run.dir={tmp_path / 'whole'}")
    assert code == 0, printed
    sweep = Command(
        "-m", *work, "data.shard=0/2,1/2", *ONE_CORE, f"hydra.sweep.dir={tmp_path / 'jobs'}"
    )
    deadline = time.monotonic() + 300
    while len(list(tmp_path.glob("jobs/*/*.ckpt"))) < 2:
        assert sweep.alive(), sweep.end()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    jobs = squeue("%A_%a %i").split("\n")
    first, second = sorted({line.split()[1] for line in jobs if line})
    subprocess.run(["scancel", "--signal=USR2", first], check=True)  # as before a time limit
    subprocess.run(["scontrol", "requeue", second], check=True)  # as by a job of higher rank
    code, printed = sweep.end(timeout=1200)  # Slurm lets a requeued job wait for two minutes
    assert code == 0, printed
    assert "2 of 2 cells done, 0 failed, 0 left" in printed
    assert results(tmp_path / "jobs") == results(tmp_path / "whole")
    said = "".join(path.read_text() for path in (tmp_path / "jobs").rglob("*_log.*"))
    assert "this job is preempted" in said
    assert "DUE TO JOB REQUEUE" in said
    for status in tmp_path.glob("jobs/*/status-*.json"):
        assert json.loads(status.read_text())["state"] == "finished"


def test_a_failing_job_is_listed(slurm: None, tmp_path: Path):
    code, printed = run(
        "-m", *TINY, "downscaler.factor=3", *ONE_CORE, f"hydra.sweep.dir={tmp_path}"
    )
    assert code == 2
    assert "downscaler.factor=3 does not divide" in printed[printed.index("1 failed") :]


def squeue(form: str) -> str:
    command = ["squeue", "--noheader", "--states=R,PD", "--array", f"--format={form}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
