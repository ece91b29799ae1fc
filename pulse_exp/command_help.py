"""`run.py --help`, read from conf/ itself. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

USAGE = """\
Restore photos by searching the latent space of a generative model.

  python run.py                                    the default portrait, 32×32 to 1024×1024
  python run.py data=folder data.root=DIR          your own aligned photos (reduced, then restored)
  python run.py data=low_res data.root=DIR         your own low-res images
  python run.py method=pulse                       the paper's method, 100 steps
  python run.py -m method=pulse,csgm seed=0,1      a sweep: every combination

Any option is one word, GROUP=OPTION; several of one group: GROUP=[A,B]; any value is KEY=VALUE.
"""

COMMON = """\
Values most often set:
  search.steps=86   search.restarts=1  search.batch_size=null  search.eps=1e-3
  search.stop=never|all_solved   downscaler.factor=8|16|32|64   seed=0
  metrics=[psnr,lr_psnr,ssim,niqe]   hydra.run.dir=DIR

  dry_run=true   compose, build, print the plan, run nothing
  --cfg job      print the composed configuration
  debug=true     show the traceback of an error

Exit status: 0 all rows searched, 1 some failed, 2 the command or configuration is wrong.
"""


def help_text(conf: Path) -> str:
    """The usage, then every group with its options and the first comment line of each file."""
    parts = [USAGE]
    for folder in sorted(p for p in conf.iterdir() if p.is_dir() and p.name != "hydra"):
        parts.append(f"{folder.name}=")
        for file in sorted(folder.glob("*.yaml")):
            parts.append(f"  {file.stem:<22} {summary(file)}")
    return "\n".join([*parts, "", COMMON])


def summary(file: Path) -> str:
    """The first comment line that is not a Hydra directive."""
    for line in file.read_text().splitlines():
        if line.startswith("#") and "@package" not in line:
            return line.lstrip("# ").rstrip()
    return ""
