"""The types that the package promises are those of the module."""

import subprocess
import sys


def test_the_stubs_are_those_of_the_native_module() -> None:
    checked = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "mycelium._native"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
