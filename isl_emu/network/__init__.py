"""Plan to kernel: Mininet, netlink, tc, replay, read-back."""

import sys

# Mininet asks distutils for a version. setuptools puts a slow one of its own in the place of Python's, which has one up
# to 3.11.
if sys.version_info < (3, 12) and (hack := sys.modules.get("_distutils_hack")):
    hack.remove_shim()
