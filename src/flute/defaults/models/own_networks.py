"""Constants of networks that a researcher brings as a file, with unit and reason."""

from __future__ import annotations

from typing import Final

from flute.defaults.models.deep import MAX_WEIGHTS

MAX_GRAPH_BYTES: Final = 4 * MAX_WEIGHTS + 2**21
"""Of one ONNX file: the weights of the largest network in 32 bits, and 2 MB for names, shapes and remarks."""
MAX_GRAPH_OPERATORS: Final = 2_000
"""64 layers in each of several residual ones, some of which exporters write as eight operators."""
MAX_SHOWN: Final = 60
"""Characters of a name out of the file, in what is said about it."""
OPSETS: Final = range(17, 26)
"""Of ONNX's own operators: 17 brought layer normalisation; up to 25 those that are read here mean the same."""
TRIED_PATIENTS: Final = 7
"""For how many patients shapes are worked out where a file leaves that open: no side of an image is likely as odd,
and nothing is computed for them."""
WRITTEN_OPSET: Final = 21
"""The first with group normalisation as it is meant here, one scale for each channel."""
WRITTEN_IR_VERSION: Final = 10
"""The form of file that goes with that opset."""
