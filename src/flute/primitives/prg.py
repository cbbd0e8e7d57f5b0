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
from flute.primitives.ring import Ring, check_ring

PRG_KEY_SIZE: Final = 32
MAX_STREAM_BYTES: Final = 2**35
"""32 GiB: half of what GCM's 32-bit counter allows before it repeats."""
BLOCK: Final = 256 * 1024
"""Bytes per step: stays in the second-level cache, where the addition is fastest."""
_ZEROS: Final = memoryview(bytes(BLOCK))
_SPARE: Final = 15
"""`update_into` wants a block less one byte of room."""


def new_room() -> bytearray:
    return bytearray(BLOCK + _SPARE)


class Stream:
    """The stream of one key, read from its beginning to wherever the last call stopped.

    room: where streams that take turns put their blocks, made once for all of them by `new_room`.
    """

    def __init__(self, key: bytes, room: bytearray | None = None) -> None:
        if len(key) != PRG_KEY_SIZE:
            raise MisuseError(f"A keystream needs a key of {PRG_KEY_SIZE} bytes.")
        self._encryptor = Cipher(AES(key), GCM(bytes(12))).encryptor()
        self._left = MAX_STREAM_BYTES
        self._room = room

    def add_to(self, words: Ring, *, negative: bool = False) -> None:
        """words ± the stream's next bytes, read as little-endian words of that width, in place."""
        check_ring(words)
        change = np.subtract if negative else np.add
        little = words.dtype.newbyteorder("<")
        at = 0
        for block in self.blocks(words.nbytes):
            mask = np.frombuffer(block, dtype=little)
            part = words[at : at + mask.size]
            change(part, mask, out=part)
            at += mask.size

    def blocks(self, size: int) -> Iterator[memoryview]:
        """The next `size` bytes in pieces, each overwritten by the next. Raises: MisuseError: past the end.

        Up to BLOCK bytes come in one piece.
        """
        if not 0 <= size <= self._left:
            raise MisuseError(f"One key may give at most {MAX_STREAM_BYTES} bytes.")
        self._left -= size
        buffer = bytearray(min(size, BLOCK) + _SPARE) if self._room is None else self._room
        for start in range(0, size, BLOCK):
            length = min(BLOCK, size - start)
            self._encryptor.update_into(_ZEROS[:length], buffer)
            yield memoryview(buffer)[:length]


def keystream(key: bytes, size: int) -> bytes:
    """The first `size` bytes of the key's stream."""
    return b"".join(bytes(block) for block in Stream(key).blocks(size))


def add_keystream(words: Ring, key: bytes, *, negative: bool = False) -> None:
    """words ± the key's stream from its beginning, in place."""
    Stream(key).add_to(words, negative=negative)
