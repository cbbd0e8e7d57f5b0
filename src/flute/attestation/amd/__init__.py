"""AMD SEV-SNP: the report, AMD's chain above it, and whether the guest is the right one."""
