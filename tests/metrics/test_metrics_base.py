import subprocess
import sys
from pathlib import Path

import pytest

from pulse_exp.errors import UserError
from pulse_exp.metrics import load
from pulse_exp.metrics.base import METRICS, RunMetric
from pulse_exp.metrics.catalog import CATALOG


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_loads_and_its_keys_are_in_the_catalog(name):
    metric = load(name)
    assert name in metric.keys
    for key in metric.keys:
        assert CATALOG[key].needs_truth == metric.needs_truth
        assert (CATALOG[key].scope == "run") == isinstance(metric, RunMetric)


def test_the_readme_says_what_every_metric_is():
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    table = readme[readme.index("| metrics |") :].partition("\n\n")[0]
    assert [name for name in METRICS if f"`{name}`" not in table] == []


def test_every_key_has_one_metric_or_comes_with_the_record():
    measured = [key for name in METRICS for key in load(name).keys]
    assert len(measured) == len(set(measured))
    of_the_input = {"lr_blur", "lr_jpeg"}
    of_the_search = {"solved", "lr_mse", "lr_mse_refined", "steps", "seconds", "peak_memory"}
    derived = {"steps_to_solve", "seconds_to_solve"}
    assert set(CATALOG) - set(measured) == of_the_input | of_the_search | derived


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match=r"'nique'.*niqe"):
        load("nique")


def test_importing_the_metrics_imports_no_heavy_library():
    code = (
        "import sys, pulse_exp.metrics.base\n"
        "heavy = ['torchmetrics', 'skimage', 'scipy', 'dlib', 'torchvision']\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
