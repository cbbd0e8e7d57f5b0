"""What `evaluate` needs of a network: its weights out of the result, and every patient's risk by them."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Mapping
from typing import Any

import numpy as np

from flute.algorithms.contract import Setting
from flute.data.dataset import Dataset
from flute.data.variables import Array
from flute.deep.inputs import scored, shapes, sized_for
from flute.deep.weights import read_weights
from flute.defaults.models.deep import SCORED_AT_ONCE
from flute.errors import BadMessageError, MisuseError


class NetworkScorer:
    """Risks by a network whose weights stand in `result["weights"]`, in base64."""

    def outcome(self, spec: Any) -> str:
        return str(spec.outcome)

    def predictors(self, spec: Any) -> tuple[str, ...]:
        return (*spec.predictors, *([spec.image] if spec.image else []))

    def size(self, spec: Any, setting: Setting) -> int:
        return sized_for(spec, setting).total

    def parameters(self, spec: Any, setting: Setting, result: Mapping[str, Any]) -> Array:
        """Raises: MisuseError: the result holds no weights of this network."""
        try:
            raw = b64decode(str(result.get("weights", "")), validate=True)
            return read_weights(raw, sized_for(spec, setting).parameters)
        except (NotBase64, BadMessageError) as error:
            raise MisuseError(f"The network to be scored has no weights that can be used: {error}") from error

    def risks(self, spec: Any, setting: Setting, parameters: Array, data: Dataset) -> Array:
        """See the contract; a patient without the image is scored on an empty one."""
        import torch

        from flute.deep.build import build, load
        from flute.deep.device import device, full_precision

        given, where = scored(spec, setting, data), device()
        module = build(spec.network, *shapes(spec, setting))
        load(module, parameters, sized_for(spec, setting).parameters)
        module.to(where).eval()
        found = np.full(len(data), 0.5)
        with torch.no_grad(), full_precision():
            for start in range(0, len(data), SCORED_AT_ONCE):
                rows = np.arange(start, min(start + SCORED_AT_ONCE, len(data)))
                images = given.images(rows)
                parts = [given.x[rows], *([] if images is None else [images])]
                logits = module(*(torch.from_numpy(part).to(where) for part in parts))
                found[rows] = torch.sigmoid(logits.double()).cpu().numpy()
        return np.asarray(np.clip(np.nan_to_num(found, nan=0.5), 0.0, 1.0))
