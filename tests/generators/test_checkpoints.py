"""Files that are damaged, hostile, or of another kind than said: refused in one clear line."""

import contextlib
import os
import pickle
import sys
import zipfile

import numpy as np
import pytest
import torch
from nvidia_pickles import modules_from, write_pickle
from test_progan import write as write_progan
from test_stylegan2 import nvidia_module, rosinality_state

from pulse_exp.errors import UserError
from pulse_exp.generators import load
from pulse_exp.generators.base import ARCHITECTURES, SOURCES, resolve
from pulse_exp.generators.checkpoints import CONVERTERS
from pulse_exp.generators.pickles import read_pickle


class Shell:
    """A pickle of it runs a command when read by an ordinary unpickler."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.fixture
def state():
    return rosinality_state("small")[1]


def refused(path, match):
    with pytest.raises(UserError, match=match) as caught:
        load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pt_file_that_would_run_code(tmp_path, state, zipped):
    path, trace = tmp_path / "file.pt", tmp_path / "trace"
    torch.save({"g_ema": state, "x": Shell(trace)}, path, _use_new_zipfile_serialization=zipped)
    refused(path, r"refused: it asks for \w+\.system.*nothing in it was executed")
    assert not trace.exists()


def test_a_pkl_file_that_would_run_code(tmp_path):
    path, trace = tmp_path / "file.pkl", tmp_path / "trace"
    write_pickle(path, {"G_ema": nvidia_module()[1], "x": Shell(trace)})
    refused(path, r"asks for \w+\.system.*nothing in it was executed")
    assert not trace.exists()


def test_the_source_in_a_pkl_is_not_run(tmp_path):
    write_pickle(tmp_path / "file.pkl", {"G_ema": nvidia_module()[1]})
    before = set(sys.modules)
    load(tmp_path / "file.pkl", class_index=0)
    assert not {name for name in set(sys.modules) - before if "torch_utils" in name}


@pytest.mark.parametrize(
    "program",
    [
        b"cbuiltins\neval\n(S'1/0'\ntR.",
        b"cposix\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",
        b"\x80\x04\x8c\x08builtins\x8c\x07getattr\x93.",
        b"cpulse_exp.generators.pickles\n_GLOBALS\n.",
        b"cnumpy\nndarray\n(N}S'__class__'\nI1\nstb.",
        b"cbuiltins\nset\n(I1\nI2\nltR}S'x'\nI1\nsb.",
        b"Pfile\n.",
        b"\x82\x01.",
        b"cnumpy\ndtype\n(S'O8'\nI0\nI1\ntR.",
        b"c__main__\nx\n.",
        b"cdnnlib.tflib.network\nNetwork\n.",
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x04K\x01r\xff\xff\xff\xff.",
        b"",
        b"no pickle at all",
        b"]" * 10 + b"a" * 20 + b".",
    ],
    ids=range(17),
)
def test_programs_in_a_pickle(tmp_path, program):
    path = tmp_path / "file.pkl"
    path.write_bytes(program)
    refused(path, "refused|a cut file|holds a|no generator known")


def test_a_tensorflow_pickle_is_named(tmp_path):
    (tmp_path / "file.pkl").write_bytes(b"cdnnlib.tflib.network\nNetwork\n.")
    refused(tmp_path / "file.pkl", "TensorFlow.*legacy.py")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files(tmp_path, state, part):
    torch.save({"g_ema": state}, tmp_path / "new.pt")
    torch.save({"g_ema": state}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    write_pickle(tmp_path / "file.pkl", {"G_ema": nvidia_module()[1]})
    for path in tmp_path.iterdir():
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * part)])
        refused(path, "a cut")


def test_a_zip_bomb(tmp_path):
    path = tmp_path / "file.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("archive/data/0", bytes(1 << 26))
        archive.writestr("archive/version", "3\n")
    assert path.stat().st_size < 1 << 17
    refused(path, "would unpack to")


def test_a_storage_that_claims_more_than_there_is(tmp_path):
    """A tensor of 2^40 numbers that all lie in one: refused, not written out."""
    tensor = torch.zeros(1).expand(1 << 20, 1 << 20)
    torch.save({"blocks.4x4.const": tensor}, tmp_path / "file.pt")
    refused(tmp_path / "file.pt", "larger than what is stored")
    attributes = {"": {"class_name": "Generator"}}
    module = modules_from(attributes, {})
    module.state["_buffers"]["x"] = tensor
    write_pickle(tmp_path / "file.pkl", {"G_ema": module})
    refused(tmp_path / "file.pkl", "larger than what is stored")


def test_modules_that_hold_one_another(tmp_path):
    """Ten levels of ten times the same module: 10^10 in all."""
    inner = modules_from({"": {"class_name": "Block"}}, {})
    for _ in range(10):
        outer = modules_from({"": {"class_name": "Block"}}, {})
        outer.state["_modules"] = {str(i): inner for i in range(10)}
        inner = outer
    write_pickle(tmp_path / "file.pkl", {"G_ema": inner})
    refused(tmp_path / "file.pkl", "more than 10000 modules")


def test_wrong_shapes(tmp_path, state):
    state["convs.2.conv.weight"] = torch.zeros(1, 7, 40, 3, 3)
    torch.save({"g_ema": state}, tmp_path / "file.pt")
    refused(tmp_path / "file.pt", r"does not fit stylegan2: .*size mismatch for layers\.3\.weight")


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 2, 2, 2, 2)])
def test_any_tensor_of_a_wrong_shape(tmp_path, state, shape):
    """Whatever tensor is wrong, no other error comes of it than the user's."""
    for name in list(state)[::3]:
        torch.save({"g_ema": {**state, name: torch.ones(shape)}}, tmp_path / "file.pt")
        with contextlib.suppress(UserError):
            load(tmp_path / "file.pt")


@pytest.mark.parametrize("name", ["conv_clamp", "activation", "weight_gain", "architecture"])
def test_a_pickle_with_attributes_of_wrong_types(tmp_path, name):
    module = nvidia_module()[1]
    for _, part in module.walk():
        if name in part.state:
            part.state[name] = ["wrong"]
    write_pickle(tmp_path / "file.pkl", {"G_ema": module})
    with pytest.raises(UserError, match=r"file\.pkl"):
        load(tmp_path / "file.pkl", class_index=1)


def test_missing_tensors(tmp_path, state):
    del state["convs.2.conv.modulation.bias"]
    torch.save({"g_ema": state}, tmp_path / "file.pt")
    refused(tmp_path / "file.pt", r"convs\.2\.conv\.modulation\.bias is missing")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path, state, value):
    state["convs.2.conv.weight"][0, 0, 0, 0, 0] = value
    torch.save({"g_ema": state}, tmp_path / "file.pt")
    refused(tmp_path / "file.pt", r"layers\.3\.weight has values that are not finite")


def test_another_kind_than_said(tmp_path, state):
    torch.save({"g_ema": state}, tmp_path / "file.pt")
    with pytest.raises(UserError, match=r"looks like stylegan2, not progan: say generator=styleg"):
        load("progan", weights=tmp_path / "file.pt")
    write_progan(tmp_path / "progan.pt", "gan_zoo")
    with pytest.raises(UserError, match=r"looks like progan, not stylegan1"):
        load("stylegan1", weights=tmp_path / "progan.pt")


def test_options_that_a_kind_does_not_have(tmp_path):
    write_progan(tmp_path / "progan.pt", "gan_zoo")
    with pytest.raises(UserError, match="progan takes no option class_index"):
        load(tmp_path / "progan.pt", class_index=1)


def test_files_that_are_no_generators(tmp_path):
    torch.save({"layer1.weight": torch.zeros(3)}, tmp_path / "resnet.pt")
    refused(tmp_path / "resnet.pt", r"no generator known here; it begins with layer1\.weight")
    torch.save([1, 2], tmp_path / "list.pt")
    refused(tmp_path / "list.pt", "holds a list")
    with pytest.raises(UserError, match="no such file"):
        load("stylegan2", weights=tmp_path / "absent.pt")
    with pytest.raises(UserError, match=r"synthesis\.pt: no such file"):
        load("stylegan1", weights=tmp_path)


def test_numpy_values_in_a_pickle(tmp_path):
    values = {
        "float": np.float64(0.1),
        "int": np.int64(-3),
        "array": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "view": np.broadcast_to(np.asarray(7), [2]),
    }
    for protocol in (2, 3, 4):
        (tmp_path / "file.pkl").write_bytes(pickle.dumps(values, protocol=protocol))
        if protocol == 2:  # bytes come as a call of _codecs.encode
            refused(tmp_path / "file.pkl", "_codecs.encode")
            continue
        found = read_pickle(tmp_path / "file.pkl")
        assert (found["float"], found["int"]) == (0.1, -3)
        for name in ("array", "fortran", "view"):
            assert np.array_equal(found[name].values, values[name])


def test_every_name_resolves():
    for target in [*ARCHITECTURES.values(), *SOURCES.values(), *CONVERTERS.values()]:
        assert callable(resolve(target))
    assert set(CONVERTERS) <= set(ARCHITECTURES)
