"""All that can be asked, others' installed algorithms included, and the digest of their code."""
