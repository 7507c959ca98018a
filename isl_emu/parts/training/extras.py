"""What real training needs beyond the package's own dependencies."""

from __future__ import annotations

from importlib.util import find_spec

from isl_emu.errors import WorkloadError


def check_torch() -> None:
    """Whether PyTorch is there, without loading it.

    Raises:
        WorkloadError: it is not.
    """
    if find_spec("torch") is None:
        raise WorkloadError(
            "training.real: is given, but PyTorch is not installed; install isl-emu with its extra, as in "
            "`pip install 'isl-emu[train]' --extra-index-url https://download.pytorch.org/whl/cpu`, or use "
            "training.modelled"
        )
