"""Limits and fixed numbers of evidence, with unit and reason."""

from __future__ import annotations

from typing import Final

# --- sizes (bytes unless said) ---------------------------------------------------------------
MAX_EVIDENCE_BYTES: Final = 64 * 2**10
"""One piece of evidence, refused before it is parsed: the largest of today are quotes of 8 kB."""
MAX_COLLATERAL_BYTES: Final = 2**20
"""Certificates, revocation lists and TCB statements; Intel's largest list of today is 60 kB."""
MAX_POLICY_BYTES: Final = 2**18
"""An appraisal policy: some hundred reference values."""
MAX_REFERENCE_VALUES: Final = 256
"""Of one field; a roster that approves more images than that approves anything."""
MAX_CERTIFICATE_BYTES: Final = 8 * 2**10
"""AMD's are 1.7 kB, a TPM's 2 kB."""
MAX_CRL_BYTES: Final = 2**18
"""AMD's lists are below 1 kB."""
REPORT_DATA_BYTES: Final = 64
"""What an enclave may bind into its evidence: 64 bytes with AMD, Intel and Arm, and what a TPM takes with SHA-512."""
MAX_CBOR_DEPTH: Final = 8
"""Nesting of a CCA token's claims; Arm's profile needs 3."""
MAX_CLAIMS: Final = 64
"""Entries of one CBOR map or list in a CCA token; Arm's example has 13 software components."""
MAX_PCRS: Final = 24
"""Platform configuration registers of one bank (PC client profile)."""

# --- times (seconds) -------------------------------------------------------------------------
MAX_CLOCK_LEAD_S: Final = 120
"""A revocation list may be dated so far after our clock: hospital clocks drift."""
