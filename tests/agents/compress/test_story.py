"""A stranger's ResNet-18 and images in class folders: from three lines to a smaller file."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torchvision.models import resnet18

from pruning_agents.cli.main import main
from pruning_agents.compress.report import Findings
from pruning_env.tasks.storage import load_pruned
from tests.helpers.image_files import write_digits

ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))


@pytest.mark.slow
@pytest.mark.skipif(not ONNX, reason="the extra export is not installed")
def test_a_resnet18_of_torchvision_becomes_a_smaller_onnx_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.save(resnet18(num_classes=3).state_dict(), "w.pth")
    write_digits(tmp_path / "photos")
    line = "--model resnet18 --weights w.pth --images photos --input 3x16x16 --budget macs=0.5"
    more = "--evaluations 1 --recovery none --epochs 1 --batch-size 16 --onnx --no-progress"
    assert main(["compress", *line.split(), *more.split(), "--out", "small"]) == 0
    out = tmp_path / "small"
    found = Findings.read(out)
    assert found.trained.task == "resnet18-on-photos" and found.trained.val_seen
    assert found.trained.macs <= 0.5 * found.trained.dense_macs
    assert set(found.searches) == {"rules"}  # one evaluation leaves none for a search
    small = load_pruned(out / "finetune" / "pruned")
    assert small(torch.zeros(1, 3, 16, 16)).shape == (1, 3)
    weights = 4 * sum(each.numel() for each in small.parameters())
    assert weights < (out / "export" / "model.onnx").stat().st_size < 1.2 * weights
    assert [row.runtime for row in found.latencies] == ["eager", "onnxruntime"]
    page = (out / "report.html").read_text()
    assert f"<td>{found.latencies[1].ms:.2f} ms</td>" in page
    assert "search-val (seen in training)" in page and "layer4.1.conv1" in page
    assert "cnnprune graph resnet18 --input 3x16x16 --classes 3" in page
