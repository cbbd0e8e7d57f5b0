"""A study of a small network over a picture of four by four, and its variable."""

from __future__ import annotations

from flute.data.variables import Variable
from flute.study.agreement import Agreement
from flute.study.files.file import read_study_file

DIGITS = Variable("mri", "image", 0, 16, label="a picture", shape=(1, 4, 4))
TEXT = """\
flute: 1
study: pictures
title: A network over pictures
purpose: Test.
researcher: ada
hubs: [north, south, west]
simulated: true
period: {from: 2026-01-01, until: 2027-12-31}
conditions:
  all: {legal_basis: test, ethics_approval: test, retain_until: 2030-01-01}
exact: {max_numbers: 20000}
variables:
  OUTCOME: {kind: binary}
  IMAGE: {kind: image, shape: [1, 4, 4], range: [0, 16], label: a picture}
questions:
  net:
    algorithm: neural-network
    outcome: OUTCOME
    image: IMAGE
    network: [{layer: conv, channels: 2}, {layer: activation}]
    training: {rounds: 1}
"""


def agreement_over(outcome: str, image: str) -> Agreement:
    text = TEXT.replace("OUTCOME", outcome).replace("IMAGE", image)
    return read_study_file(text, path="pictures.yaml", code=bytes(32))[0]
