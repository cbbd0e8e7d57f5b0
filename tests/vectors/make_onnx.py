"""Writes onnx/*.onnx: PyTorch modules by both of its exporters, with random weights.

Needs torch, onnx and onnxscript, which the tests do not. Remarks of the exporters (lines of code, names of files) are
taken out. What is there was written with torch 2.13, onnx 1.23 and onnxscript 0.7.

    python tests/vectors/make_onnx.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn
from torch.nn import functional

HERE = Path(__file__).parent / "onnx"
torch.manual_seed(5)  # the modules below draw their weights


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=p) for p in (1, "same"))
        self.norm = nn.GroupNorm(2, channels)

    def forward(self, x: Any) -> Any:
        return functional.relu(x + self.second(functional.relu(self.norm(self.first(x)))))


class Both(nn.Module):
    """Of an image and numbers, with a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.block = nn.Conv2d(2, 4, 5, stride=2, padding=2), Block(4)
        self.dense, self.drop, self.last = nn.Linear(4 * 2 * 2, 8), nn.Dropout(0.25), nn.Linear(8 + 3, 1)

    def forward(self, image: Any, numbers: Any) -> Any:
        found = self.block(functional.max_pool2d(torch.tanh(self.first(image)), 2))
        found = self.drop(self.dense(found.view(found.size(0), -1)).relu())
        return self.last(torch.cat([found, numbers], dim=1)).squeeze(-1)


class Wide(nn.Module):
    """Of numbers, with sums in sums."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.outer, self.inner = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        self.norm, self.last = nn.LayerNorm(6), nn.Linear(6, 1)

    def forward(self, x: Any) -> Any:
        x = functional.gelu(self.first(x))
        found = self.outer(x)
        found = found + torch.tanh(self.inner(found))
        return self.last(self.norm(x + found))[:, 0]


class Mean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4, 1)

    def forward(self, image: Any) -> Any:
        return self.last(functional.elu(self.conv(image)).mean(dim=(-2, -1)))


NUMBERS = nn.Sequential(
    nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, 1)
)  # fmt: skip
VOLUME = nn.Sequential(
    nn.Conv3d(2, 4, 3, padding=1), nn.InstanceNorm3d(4, affine=True), nn.ELU(), nn.AvgPool3d(2), nn.Identity(),
    nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 1),
)  # fmt: skip
MODULES: dict[str, tuple[nn.Module, dict[str, tuple[int, ...]]]] = {
    "numbers": (NUMBERS, {"numbers": (3,)}),
    "wide": (Wide(), {"numbers": (3,)}),
    "mean": (Mean(), {"image": (1, 6, 6)}),
    "volume": (VOLUME, {"image": (2, 4, 5, 6)}),
    "both": (Both(), {"image": (2, 9, 9), "numbers": (3,)}),
}


def exported(module: nn.Module, shapes: dict[str, tuple[int, ...]], path: Path, *, dynamo: bool, opset: int) -> None:
    given = tuple(torch.zeros(2, *shape) for shape in shapes.values())
    fixed: dict[str, Any] = {"input_names": list(shapes), "output_names": ["log_odds"], "opset_version": opset}
    if dynamo:
        fixed |= {
            "dynamo": True,
            "dynamic_shapes": tuple({0: torch.export.Dim("n")} for _ in given),
            "external_data": False,
        }
    else:
        fixed |= {"dynamo": False, "dynamic_axes": {name: {0: "n"} for name in (*shapes, "log_odds")}}
    torch.onnx.export(module.eval(), given, str(path), **fixed)
    model = onnx.load(path)
    for part in (model, model.graph, *model.graph.node, *model.graph.initializer, *model.graph.value_info):
        part.doc_string = ""
        del part.metadata_props[:]
    onnx.save(model, path)


def main() -> None:
    for name, (module, shapes) in MODULES.items():
        with torch.no_grad():  # norms begin at 1 and 0
            for parameter in module.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
        for way, dynamo, opset in (("traced", False, 20), ("exported", True, 20), ("exported_22", True, 22)):
            exported(module, shapes, HERE / f"{name}_{way}.onnx", dynamo=dynamo, opset=opset)


if __name__ == "__main__":
    main()
