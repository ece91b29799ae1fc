"""Run folders as a search writes them, with made-up numbers and small pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def record(image: str, restart: int = 0, **values: Any) -> dict[str, Any]:
    """One row of the records with every key that a run writes."""
    defaults = {
        "image": image, "restart": restart, "seed": 0, "status": "solved", "reason": "",
        "method": "pulse", "generator": "toy", "latent": "w", "prior": "sphere+cross",
        "downscaler": "bicubic", "degradation": "none", "loss": "l2", "optimizer": "adam",
        "refine": "none", "factor": 8, "eps": 0.001, "lr_mse": 0.0008, "psnr": 20.0,
        "lr_psnr": 31.0, "niqe": 4.0, "ssim": 0.6, "steps": 100, "best_step": 90,
        "solved_step": 40, "seconds": 5.0, "config_hash": "c0", "git_commit": "abc1234",
        "versions": "python 3.11, torch 2.5.0", "peak_memory": 900.0,
    }  # fmt: skip
    row = {**defaults, **values}
    if row["status"] == "failed":
        blank = ("lr_mse", "psnr", "lr_psnr", "niqe", "ssim", "solved_step", "best_step")
        row.update({key: None for key in blank if key not in values})
    if row["status"] == "unsolved":
        row["solved_step"] = None
    return row


def write_run(
    folder: Path, records: list[dict[str, Any]], overrides: list[str] | None = None
) -> Path:
    """A run folder with its records and, where there are overrides, `.hydra`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in records)
    (folder / "records.jsonl").write_text(lines, encoding="utf-8")
    if overrides is not None:
        (folder / ".hydra").mkdir(exist_ok=True)
        text = "".join(f"- {override}\n" for override in overrides)
        (folder / ".hydra" / "overrides.yaml").write_text(text, encoding="utf-8")
    return folder


def write_curves(folder: Path, records: list[dict[str, Any]], steps: int = 30) -> None:
    """`curves.jsonl`: errors that fall from 0.1 to each record's `lr_mse`."""
    lines = []
    for row in records:
        if row["lr_mse"] is None:
            continue
        step = np.arange(steps + 1)
        lr_mse = row["lr_mse"] + 0.1 * np.exp(-step / 6)
        curve = {
            "image": row["image"],
            "restart": row["restart"],
            "config_hash": row["config_hash"],
            "step": step.tolist(),
            "lr_mse": lr_mse.tolist(),
            "l2": (100 * lr_mse).tolist(),
        }
        lines.append(json.dumps(curve) + "\n")
    (folder / "curves.jsonl").write_text("".join(lines), encoding="utf-8")


def write_images(folder: Path, records: list[dict[str, Any]], side: int = 64) -> None:
    """`hr/`, `lr/` and `sr/`: a disc whose place depends on the image, blurred and noisy."""
    y, x = np.mgrid[:side, :side] / side
    for name in ("hr", "lr", "sr"):
        (folder / name).mkdir(exist_ok=True)
    for row in records:
        rng = np.random.default_rng([ord(letter) for letter in row["image"]])
        centre, colour = rng.uniform(0.3, 0.7, 2), rng.uniform(0.3, 0.9, 3)
        disc = 1 / (1 + np.exp(40 * (np.hypot(y - centre[0], x - centre[1]) - 0.25)))
        truth = disc[..., None] * colour + (1 - disc[..., None]) * 0.15
        low = truth.reshape(side // 8, 8, side // 8, 8, 3).mean(axis=(1, 3))
        _save(truth, folder / "hr" / f"{row['image']}.png")
        _save(low, folder / "lr" / f"{row['image']}.png")
        if row["status"] != "failed":
            noise = np.random.default_rng(row["restart"]).normal(0, 0.04, truth.shape)
            _save(truth + noise, folder / "sr" / f"{row['image']}-{row['restart']}.png")


def write_study(folder: Path, images: int = 4, restarts: int = 2, pictures: bool = True) -> Path:
    """A multirun of two priors and two degradations, with one failed and one unsolved search."""
    rng = np.random.default_rng(7)
    number = 0
    for prior, shift in (("none", 0.0), ("sphere+cross", 1.5)):
        for degradation, loss in (("none", 0.0), ("gaussian_noise", 2.0)):
            rows = []
            for index in range(images):
                for restart in range(restarts):
                    failed = (prior, degradation, index, restart) == ("none", "none", 1, 0)
                    unsolved = degradation == "gaussian_noise" and index % 2
                    status = "failed" if failed else "unsolved" if unsolved else "solved"
                    quality = rng.normal(0, 0.5)
                    rows.append(
                        record(
                            f"face-{index}", restart, prior=prior, degradation=degradation,
                            config_hash=f"c{number}", status=status,
                            reason="loss became NaN at step 3" if failed else "",
                            **({} if failed else {
                                "psnr": 20 + quality - loss, "niqe": 4.5 - shift + quality / 2,
                                "lr_mse": float(np.exp(rng.normal(-7.2, 0.3))),
                                "seconds": float(rng.uniform(4, 8)),
                                "solved_step": int(rng.integers(20, 90)),
                            } | ({"solved_step": None} if unsolved else {})),
                        )
                    )  # fmt: skip
            run = write_run(
                folder / str(number), rows, [f"prior={prior}", f"degradation={degradation}"]
            )
            write_curves(run, rows)
            if pictures:
                write_images(run, rows)
            number += 1
    return folder


def _save(pixels: np.ndarray, path: Path) -> None:
    Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8)).save(path)
