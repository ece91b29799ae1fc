"""Kills a sweep many times at random moments and compares its end with an undisturbed one.

    python -m tests.stress [KILLS]

Not collected by pytest: it takes minutes. Prints where each kill fell.
"""

import random
import sys
import tempfile
from pathlib import Path

from tests.test_sweeps import TINY, disturbed, results, run, table

SEEDS = range(1, 7)


def main(kills: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        seeds = f"seed={','.join(map(str, SEEDS))}"
        code, printed = run("-m", *TINY, seeds, f"hydra.sweep.dir={whole}")
        assert code == 0, printed
        done = 0
        while done < kills:
            cut = Path(folder) / f"cut{done}"
            done += (now := disturbed(cut, SEEDS, random.Random(done), kills - done))
            assert results(cut) == results(whole)
            assert table(cut) == table(whole)
            print(f"{done} kills; the last sweep ({now}) equals the undisturbed one", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
