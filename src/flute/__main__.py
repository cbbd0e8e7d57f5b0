"""`python -m flute` is the `flute` command."""

from flute.cli import main

main()
