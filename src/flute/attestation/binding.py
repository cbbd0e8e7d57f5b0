"""What an enclave binds into its evidence: the key that a hub will seal to, and what the key is for.

The maker signs 64 free bytes (report data, challenge, nonce). They are a digest of the enclave's public key and of a
context (study, round, role), so a key, a study or a role cannot be exchanged under evidence that was made for
another.
"""

from __future__ import annotations

import hashlib
from struct import Struct
from typing import Final

from flute.errors import MisuseError

_LABEL: Final = b"flute/attestation/report-data/v1"
_LENGTH: Final = Struct(">Q")


def report_data(public_key: bytes, context: bytes) -> bytes:
    """SHA-512(label || length || public key || length || context): 64 bytes, one pair of parts for each.

    Args: public_key: the raw key that is vouched for. context: what it may be used for, never empty.
    Raises: MisuseError: a part is empty: evidence would bind nothing.
    """
    if not public_key or not context:
        raise MisuseError("Report data binds a public key and a context; neither may be empty.")
    bound = hashlib.sha512(_LABEL)
    for part in (public_key, context):
        bound.update(_LENGTH.pack(len(part)))
        bound.update(part)
    return bound.digest()
