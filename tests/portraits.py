"""Official portraits out of the source package of face_recognition 1.3.0, kept in the cache."""

import io
import subprocess
import sys

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from pulse_exp.errors import UserError
from pulse_exp.generators.weights import Distribution, cache_folder, read_members

SOURCE = Distribution(
    "face_recognition",
    "1.3.0",
    "face_recognition-1.3.0.tar.gz",
    "5e5efdd1686aa566af0d3cc1313b131e4b197657a8ffd03669e6d3fad92705ec",
)


def portrait(name):
    """`obama`, `obama2`, `obama3`, `biden`, ... as `[H, W, 3]` uint8; skips the test without."""
    member = f"face_recognition-1.3.0/tests/test_images/{name}.jpg"
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "portraits.lock"):
        if not (folder / SOURCE.filename).is_file():
            fetch(folder)
    try:
        file = read_members(SOURCE, [member])[member]
    except UserError as error:
        pytest.skip(str(error))
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def fetch(folder):
    # The wheel has no pictures, so pip is told to bring the source archive.
    options = "-m pip download --quiet --no-deps --retries 1 --no-binary :all:"
    command = [sys.executable, *options.split(), "--dest", str(folder)]
    requirement = f"{SOURCE.name}=={SOURCE.version}"
    result = subprocess.run(
        [*command, requirement], capture_output=True, text=True, timeout=300, check=False
    )
    if result.returncode:
        reason = (result.stderr.strip() or "no reason given").splitlines()[-1]
        pytest.skip(f"{requirement} cannot be fetched: {reason}")
