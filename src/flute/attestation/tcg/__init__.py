"""The Trusted Computing Group's TPM 2.0: quotes, for development."""
