import subprocess
import sys

import pytest

from pulse_exp.metrics.catalog import CATALOG, value_of

SOLVED = {"status": "solved", "solved_step": 25, "steps": 100, "seconds": 8.0, "psnr": 20.5}


def test_reading_the_catalog_does_not_import_torch():
    code = "import sys, pulse_exp.metrics.catalog; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("key", CATALOG)
def test_every_entry_states_its_range_and_direction(key):
    info = CATALOG[key]
    assert info.key == key
    assert info.label
    assert info.description.endswith(".")
    assert info.low < info.high
    assert info.direction in ("↓", "↑", "")


def test_derived_values():
    assert value_of(SOLVED, "solved") == 1
    assert value_of(SOLVED, "steps_to_solve") == 25
    assert value_of(SOLVED, "seconds_to_solve") == 2.0
    assert value_of(SOLVED, "psnr") == 20.5


def test_a_row_that_has_no_value_says_none():
    failed = {"status": "failed", "solved_step": None, "steps": 0, "seconds": 0.0, "psnr": None}
    assert value_of(failed, "solved") == 0
    for key in ("steps_to_solve", "seconds_to_solve", "psnr", "niqe"):
        assert value_of(failed, key) is None
    assert value_of({"niqe": float("nan")}, "niqe") is None
    assert value_of({}, "solved") is None


def test_a_search_solved_at_its_start_took_no_time():
    assert value_of({"solved_step": 0, "steps": 100, "seconds": 5.0}, "seconds_to_solve") == 0
