"""The program that runs inside an enclave: it adds up one share of every hub's answer."""
