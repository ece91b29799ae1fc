import subprocess
import sys
from pathlib import Path

import pytest

from pulse_exp.command_help import help_text
from pulse_exp.naming import folder_name
from tests.compose import CONF, SMALL

RUN = CONF.parent / "run.py"


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(RUN), *arguments], capture_output=True, text=True, timeout=300
    )


def test_help_names_every_group_and_option_and_imports_nothing_heavy():
    text = help_text(CONF)
    for path in CONF.glob("*/*.yaml"):
        if path.parent.name != "hydra":
            assert f"  {path.stem} " in text, path
            assert f"{path.parent.name}=" in text
    code = "import sys; sys.argv = ['run.py', '--help']; from pulse_exp.command import main; main()"
    code += "; assert not {'torch', 'hydra', 'numpy'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=RUN.parent)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generator=toi"], "did you mean toy?"),
        (["prior.sphere.radiu=1", "method=pulse"], "did you mean radius?"),
        (["search.step=5"], "did you mean steps?"),
        (["task=dance"], "task=dance"),
        (["data=folder", "data.root=/nowhere/at/all"], "no such folder"),
        (["search.steps=0", "search.stop=x"], "search.stop=x"),
    ],
)
def test_a_wrong_command_is_one_line_and_exit_2(tmp_path: Path, arguments: list[str], said: str):
    done = command(*SMALL, f"hydra.run.dir={tmp_path}", *arguments)
    assert done.returncode == 2
    assert said in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_a_sweep_goes_on_after_a_failing_cell(tmp_path: Path):
    done = command(
        "-m", *SMALL, "data=generated", "data.count=1", "metrics=[]", "downscaler.factor=8,7",
        f"hydra.sweep.dir={tmp_path}",
    )  # fmt: skip
    assert done.returncode != 0
    assert "downscaler.factor=7" in done.stderr
    records = list(tmp_path.glob("*/records.jsonl"))
    assert len(records) == 1


def test_folders_are_named_by_what_is_run():
    assert folder_name("") == "default"
    assert folder_name("method=pulse,seed=1") == "method=pulse,seed=1"
    long = folder_name("data.root=/a/b c/" + "x" * 300)
    assert len(long) <= 120
    assert "/" not in long


def test_a_long_folder_name_keeps_what_varies_and_the_end_of_paths():
    one, other = (
        folder_name(f"data.root=/{disk}/{'photos/' * 20}faces,method=pulse,search.eps=0.002")
        for disk in ("a", "b")
    )
    assert one[:-8] == other[:-8] == "data.root=faces,method=pulse,search.eps=0.002-"
    assert one != other
