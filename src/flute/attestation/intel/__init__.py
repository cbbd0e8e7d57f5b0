"""Intel TDX and SGX: quotes, Intel's chain above them, and whether the software is the right one."""
