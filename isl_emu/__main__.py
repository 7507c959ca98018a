"""`python -m isl_emu` is the `isl-emu` command."""

import os
import sys

sys.path = [entry for entry in sys.path if entry not in ("", os.getcwd())]  # a random.py there is not Python's

from isl_emu.cli import main  # noqa: E402

main()
