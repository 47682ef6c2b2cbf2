"""The examples run as they stand, and stay short."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = ["--epochs", "1", "--batch-size", "8", "--input-size", "16"]


def run(name, photos, folder):
    command = [sys.executable, EXAMPLES / name, photos, *SMALL]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_under_sixty_lines(path):
    assert len(path.read_text().splitlines()) < 60


def test_the_plain_pytorch_example_trains(photos, tmp_path):
    done = run("plain_pytorch.py", photos, tmp_path)
    assert done.returncode == 0, done.stderr
    loss = float(done.stdout.split("loss")[1])
    assert math.isfinite(loss) and loss > 0
    assert "conv1.weight" in torch.load(tmp_path / "simclr.pt", weights_only=True)


def test_the_to_device_example_trains(photos, tmp_path):
    done = run("to_device.py", photos, tmp_path)
    assert done.returncode == 0, done.stderr
    loss = float(done.stdout.split("loss")[1].split(";")[0])
    assert math.isfinite(loss) and loss > 0


def test_the_lightning_example_trains(photos, tmp_path):
    pytest.importorskip("lightning", reason="Lightning is not installed")
    done = run("lightning_module.py", photos, tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("lightning_logs/version_0/checkpoints/*.ckpt"))
