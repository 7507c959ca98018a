"""`python -m isl_emu` is the `isl-emu` command."""

from isl_emu.cli import main

main()
