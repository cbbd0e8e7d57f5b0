"""Expansion of a 32-byte key into a keystream: AES-256 in counter mode, the counter starting at 2.

Computed as the ciphertext of zeros under AES-256-GCM with a zero nonce, which is that very stream
(NIST SP 800-38D section 7.1: J0 = 0^96 || 1, the first block of text takes inc32(J0)) and the fastest path
through OpenSSL. The tag is not computed. One key makes one stream: a key that is used twice gives the same
mask twice, so callers derive every key with its whole context.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM

from flute.errors import MisuseError
from flute.primitives.ring import WORD_BYTES, Ring

PRG_KEY_SIZE: Final = 32
MAX_STREAM_BYTES: Final = 2**32
"""Far below the 64 GiB at which GCM's 32-bit counter would repeat."""
_BLOCK: Final = 256 * 1024
"""Bytes per step: stays in the second-level cache, where the addition is fastest."""
_ZEROS: Final = memoryview(bytes(_BLOCK))
_SPARE: Final = 15
"""`update_into` wants a block less one byte of room."""


def keystream(key: bytes, size: int) -> bytes:
    """The first `size` bytes of the key's stream."""
    return b"".join(bytes(block) for block in _blocks(key, size))


def add_keystream(words: Ring, key: bytes, *, negative: bool = False) -> None:
    """words ± stream mod 2^64, in place; the stream is read as little-endian 64-bit words."""
    if words.dtype != np.uint64 or words.ndim != 1:
        raise MisuseError("Only a flat vector of 64-bit residues can be masked.")
    change = np.subtract if negative else np.add
    at = 0
    for block in _blocks(key, words.size * WORD_BYTES):
        mask = np.frombuffer(block, dtype="<u8")
        part = words[at : at + mask.size]
        change(part, mask, out=part)
        at += mask.size


def _blocks(key: bytes, size: int) -> Iterator[memoryview]:
    """Pieces of the stream; each is overwritten by the next."""
    if len(key) != PRG_KEY_SIZE:
        raise MisuseError(f"A keystream needs a key of {PRG_KEY_SIZE} bytes.")
    if not 0 <= size <= MAX_STREAM_BYTES:
        raise MisuseError(f"One key may give at most {MAX_STREAM_BYTES} bytes.")
    encryptor = Cipher(AES(key), GCM(bytes(12))).encryptor()
    buffer = bytearray(_BLOCK + _SPARE)
    for start in range(0, size, _BLOCK):
        length = min(_BLOCK, size - start)
        encryptor.update_into(_ZEROS[:length], buffer)
        yield memoryview(buffer)[:length]
