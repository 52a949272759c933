"""Freed memory stays with the process."""

import platform
import subprocess
import sys

import pytest

PAGES_ASKED_FOR_AGAIN = """
import resource, sys
from lib.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def work():
    return [bytearray(20 << 20) for _ in range(4)]
for _ in range(3):  # by then glibc has raised its own thresholds
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc is left as it is")
def test_what_was_freed_is_taken_again_without_asking_for_its_pages_again():
    pages = {
        how: int(subprocess.run([sys.executable, "-c", PAGES_ASKED_FOR_AGAIN, how], capture_output=True).stdout)
        for how in ("keep", "leave")
    }
    assert pages["keep"] < 100 < pages["leave"]
