"""Training at one hub, exact mode: from the common weights, for some passes over its patients, in a public order.

The course of it depends on how many patients there are, not on what their values are: one who is left out stays in
her batch with weight 0. Patients come in the order of a keyed stream over their sorted pseudonyms, so the order of
rows does not matter. Import this module where torch is needed, not above. The result is the same every time on the
same kind of machine; on a GPU sums are rounded otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits

from flute.data.variables import Array
from flute.deep.build import build, load, tensors_of
from flute.deep.device import device, full_precision
from flute.deep.inputs import Inputs
from flute.deep.parameter import Parameter, Shape
from flute.deep.server import trained_mask
from flute.deep.sizes import Sized
from flute.deep.spec import NeuralNetwork, Training
from flute.defaults.models.deep import CHANGE_BOUND, GRADIENT_BOUND, LOSS_CAP
from flute.primitives.keys import digest
from flute.primitives.prg import keystream

Rows = NDArray[np.int64]
_ORDER: Final = b"flute/network/order/v1"
_DROPPED: Final = b"flute/network/dropped/v1"


class Hub:
    """One hub's part of one round. `inputs` in the order of their sorted pseudonyms, `rows` the places of that."""

    def __init__(self, spec: NeuralNetwork, sized: Sized, shapes: tuple[int, Shape], inputs: Inputs) -> None:
        self._spec = spec
        self._training: Training = spec.training
        self._inputs = inputs
        self._where = device()
        self._parameters = sized.parameters
        self._module = build(spec.network, *shapes).to(self._where)
        self._weights, self._gradient = _flattened(self._module, sized.parameters, self._where)
        self._trained = torch.from_numpy(trained_mask(sized.parameters).astype(np.float32)).to(self._where)

    @full_precision()
    def total(self, step: int, asked: Array, order: Rows) -> Array:
        """float64 [outline[step].size]: see `server`. asked: as `server.asked_size` says. order: the rows, by their
        pseudonyms. What is no finite number counts as 0, a loss as the largest."""
        parts = np.split(asked, asked.size // self._trained.numel())
        correction, gradient = self._correction(parts, order), []
        if self._training.method == "scaffold":
            gradient = [_bounded(self._mean_gradient(parts[0], order), GRADIENT_BOUND)]
        loss, change = self._trained_from(parts[0], step, order, correction)
        n = float(self._inputs.included.sum())
        head = [1.0, float(np.clip(np.nan_to_num(loss, nan=LOSS_CAP), 0.0, LOSS_CAP)) / LOSS_CAP]
        return np.concatenate([head, _bounded(change, CHANGE_BOUND), *gradient]) * n

    def _correction(self, parts: list[Array], order: Rows) -> Any:
        """SCAFFOLD's: all hubs' mean gradient at the weights of the round before, less this hub's own there."""
        if len(parts) == 1:
            return 0.0
        _, before, everyones = parts
        correction = everyones - self._mean_gradient(before, order)
        return torch.from_numpy(correction).to(self._where, torch.float32)

    def _trained_from(self, start: Array, step: int, order: Rows, correction: Any) -> tuple[float, Array]:
        """(mean loss of the last pass, change of the weights [total])."""
        training = self._training
        load(self._module, start, self._parameters)
        common, speed = self._weights.clone(), torch.zeros_like(self._weights)
        pull = training.proximal if training.method in ("fedprox", "scaffold") else 0.0
        momentum = 0.0 if training.method == "scaffold" else training.momentum  # it would add up a stale correction
        self._module.train()
        losses = torch.zeros((), device=self._where)
        with torch.random.fork_rng(devices=[self._where] if self._where.type == "cuda" else []):
            torch.manual_seed(_number(_DROPPED, self._spec.seed, step))
            for epoch in range(training.local_epochs):
                losses = torch.zeros((), device=self._where)
                for rows in _batches(order[_shuffled(len(order), self._spec.seed, step, epoch)], training.batch):
                    losses += self._gradient_of(rows)
                    with torch.no_grad():
                        towards = self._gradient + training.weight_decay * self._weights + correction
                        towards += pull * (self._weights - common)
                        speed.mul_(momentum).add_(towards * self._trained)
                        self._weights.sub_(speed, alpha=training.learning_rate)
        change = (self._weights.double() - common.double()).cpu().numpy()
        return float(losses) / max(int(self._inputs.included.sum()), 1), np.asarray(change)

    def _gradient_of(self, rows: Rows) -> Any:
        """Sets the gradient to that of the mean loss of those of `rows` who count; gives the sum of their losses."""
        logits, outcomes, counts = self._forward(rows)
        summed = (binary_cross_entropy_with_logits(logits, outcomes, reduction="none") * counts).sum()
        self._gradient.zero_()
        (summed / counts.sum().clamp(min=1.0)).backward()
        return summed.detach()

    def _mean_gradient(self, weights: Array, order: Rows) -> Array:
        """Of the mean loss of all who count, without dropout; float64 [total], 0 for buffers."""
        load(self._module, weights, self._parameters)
        self._module.eval()
        self._gradient.zero_()
        for rows in _batches(order, self._training.batch):
            logits, outcomes, counts = self._forward(rows)
            (binary_cross_entropy_with_logits(logits, outcomes, reduction="none") * counts).sum().backward()
        n = max(int(self._inputs.included.sum()), 1)
        return np.asarray((self._gradient.double() / n * self._trained).cpu().numpy())

    def _forward(self, rows: Rows) -> tuple[Any, Any, Any]:
        """(log odds, outcomes, 1 for those who count) of some rows."""
        if len(rows) == 1 and self._batch_norm:  # takes no single patient; she counts as one all the same
            logits, outcomes, counts = self._forward(np.repeat(rows, 2))
            return logits[:1], outcomes[:1], counts[:1]
        inputs, images = self._inputs, self._inputs.images(rows)
        given = [inputs.x[rows], *([] if images is None else [images])]
        logits = self._module(*(torch.from_numpy(part).to(self._where) for part in given))
        outcomes = torch.from_numpy(inputs.y[rows]).to(self._where)
        counts = torch.from_numpy(inputs.included[rows].astype(np.float32)).to(self._where)
        return logits, outcomes, counts

    @property
    def _batch_norm(self) -> bool:
        return not all(parameter.trained for parameter in self._parameters)


def _flattened(module: Any, parameters: tuple[Parameter, ...], where: Any) -> tuple[Any, Any]:
    """(weights, gradient), each a vector [total] whose parts the module's tensors and their gradients are from now
    on: a step is then a few operations whatever the number of layers."""
    total = sum(parameter.size for parameter in parameters)
    weights, gradient = torch.zeros(total, device=where), torch.zeros(total, device=where)
    tensors = tensors_of(module)
    ends = accumulate(parameter.size for parameter in parameters)
    for parameter, end in zip(parameters, ends, strict=True):
        part = slice(end - parameter.size, end)
        tensors[parameter.name].data = weights[part].view(parameter.shape)
        if parameter.trained:
            tensors[parameter.name].grad = gradient[part].view(parameter.shape)
    return weights, gradient


def _batches(rows: Rows, size: int) -> Iterator[Rows]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _shuffled(n: int, seed: int, step: int, epoch: int) -> Rows:
    """Places 0 to n - 1 in an order that everyone can work out."""
    key = digest(_ORDER, *(number.to_bytes(8, "little") for number in (seed, step, epoch)))
    words = np.frombuffer(keystream(key, 8 * n), dtype="<u8")
    return np.asarray(np.argsort(words, kind="stable"), dtype=np.int64)


def _number(label: bytes, seed: int, step: int) -> int:
    """A seed for torch, whose chance (which numbers are dropped) is public like the order."""
    return int.from_bytes(digest(label, seed.to_bytes(8, "little"), step.to_bytes(8, "little"))[:7], "little")


def _bounded(values: Array, bound: float) -> Array:
    """Within [-1, 1] in units of the bound; 0 for what is no finite number."""
    return np.asarray(np.clip(np.nan_to_num(values, nan=0.0, posinf=bound, neginf=-bound) / bound, -1.0, 1.0))
