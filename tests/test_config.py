from pathlib import Path

import pytest
import yaml
from hydra.errors import ConfigCompositionException

from pulse_exp.building import build
from pulse_exp.complaints import complaints
from pulse_exp.config import config_hash
from pulse_exp.generators import load
from pulse_exp.schemas import SCHEMAS
from tests.compose import CONF, SMALL, job

YAMLS = sorted(p.relative_to(CONF) for p in CONF.glob("*/*.yaml"))
NEEDED = {
    "data": {"generator": None, "seed": 0},
    "latent": {"generator": None},
    "noise": {"low_res_side": 8},
}
"""What the run passes to an option of a group when it builds it."""

WITHOUT_REDUCTION = [f"downscaler/{x}.yaml" for x in ("identity", "block_mask", "random_mask")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from PIL import Image

    Image.new("RGB", (64, 64)).save(tmp_path / "grey.png")
    return tmp_path


@pytest.mark.parametrize("path", YAMLS, ids=str)
def test_every_yaml_composes_and_builds(path: Path, folder: Path):
    group, name = path.parent.name, path.stem
    extra = ["downscaler.factor=1"] if path.as_posix() in WITHOUT_REDUCTION else []
    place = f"{group}.{name}" if group == "baseline" else group
    extra += [f"{place}.root={folder}"] if "root" in _keys(group, name) else []
    config, words = job(*SMALL, f"{group}={name}", *extra)
    assert words.get(group, name) == name
    if group in ("method", "logger", "trainer", "generator", "study"):
        return
    node = config[group]
    options = node.values() if not hasattr(node, "_target_") else [node]
    if "_target_" in node:
        options = [node]
    for option in options:
        needed = {
            k: load("toy") if k == "generator" else v for k, v in NEEDED.get(group, {}).items()
        }
        assert build(option, **needed) is not None


def _keys(group: str, name: str) -> list[str]:
    schema = SCHEMAS.get(group, {}).get(name)
    return list(schema.__dataclass_fields__) if schema else []


def test_every_schema_has_its_yaml():
    for group, options in SCHEMAS.items():
        for name in options:
            used = (CONF / group / f"{name}.yaml").is_file()
            part_of_another = any(
                f"/schema/{group}/{name}@" in file.read_text() for file in (CONF / group).glob("*")
            )
            assert used or part_of_another, f"{group}={name}"


@pytest.mark.parametrize(
    "wrong", ["prior.sphere.radiu=1", "search.step=5", "searches=1", "search.steps=many"]
)
def test_a_typo_or_a_wrong_type_fails_while_composing(wrong: str):
    with pytest.raises(ConfigCompositionException):
        job(*SMALL, "method=pulse", wrong)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("search.stop=sometimes", "all_solved"),
        ("search.steps=0", "search.steps"),
        ("search.eps=0", "search.eps"),
        ("noise.trained=all", "noise.trained=all: choose one of a number, visible"),
        ("noise.trained=-1", "noise.trained=-1"),
        ("data.shard=4/4", "data.shard"),
        ("data=folder", "data.root"),
        ("latent=z", "layered_gaussian"),
        ("loss=[]", "loss"),
        ("downscaler.factor=7", "downscaler.factor=7"),
        ("data=low_res degradation=[grey]", "degradation=none"),
        ("results=done", "results=done: only task=measure"),
        ("task=align output=faces", "output=faces: only task=convert"),
    ],
)
def test_the_impossible_is_refused_with_its_key(override: str, said: str):
    config, _ = job(*SMALL, "data=generated", *override.split())
    assert any(said in line for line in complaints(config))


def test_all_complaints_come_at_once():
    config, _ = job(*SMALL, "search.stop=x", "search.steps=0", "data=folder")
    assert len(complaints(config)) >= 3


def test_methods_choose_options_and_the_command_line_overrules_them():
    config, words = job(*SMALL, "method=pulse", "prior=[cross,gaussian]")
    assert words["latent"] == "gaussianized_w_plus"
    assert words["prior"] == "cross+gaussian"
    assert set(config.prior) == {"cross", "gaussian"}


def test_methods_carry_no_number_but_their_steps_and_no_word_but_of_their_inputs():
    for path in (CONF / "method").glob("*.yaml"):
        method = yaml.safe_load(path.read_text()) or {}
        assert all(key.startswith("override /") for x in method.pop("defaults") for key in x), path
        assert set(method) <= {"search"}, path
        assert set(method.get("search", {})) <= {"steps", "blur", "compression"}, path


def test_the_steps_of_a_method_are_its_own_until_the_command_line_says_otherwise():
    assert job()[0].search.steps == 86
    assert job("method=pulse")[0].search.steps == 100
    assert job("search.steps=7")[0].search.steps == 7


def test_the_hash_speaks_of_results_only():
    base = config_hash(job(*SMALL)[0])
    same = [
        "search.batch_size=3",
        "search.restarts=2",
        "logger=csv",
        "metrics=[psnr]",
        "debug=true",
    ]
    for override in same:
        assert config_hash(job(*SMALL, override)[0]) == base, override
    for override in ["seed=1", "search.steps=6", "downscaler=bicubic_pil", "search.eps=0.002"]:
        assert config_hash(job(*SMALL, override)[0]) != base, override


def test_the_ramps_of_published_methods_are_their_own():
    """The default method's ramp is longer; the projector's is a quarter of the steps."""
    assert job("method=stylegan2_projector")[0].schedule.ramp_down == 0.25
    assert job("method=dual_ascent")[0].schedule.ramp_down == 0.5
