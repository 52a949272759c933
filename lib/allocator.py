"""Memory that tensors free stays with the process, so that the next training step finds it there.

By default glibc gives the free end of its heap back to the system, and gets it again page by page: in a step of RA at
64 px with a batch of 16 up to 10,000 pages. Other C libraries are left as they are.
"""

import ctypes
import platform

# Parameters of mallopt(3). To set one fixes the other, which glibc otherwise raises up to 32 MiB as blocks are freed.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
NEVER, LARGEST = -1, 2**25  # bytes


def keep_freed_memory() -> bool:
    """Let malloc keep blocks below 32 MiB that are freed; return whether it does, which takes glibc.

    Larger ones still go back to the system one by one: kept, they would be cut into pieces, and memory would grow.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    allocator = ctypes.CDLL(None)
    return bool(allocator.mallopt(MMAP_THRESHOLD, LARGEST) and allocator.mallopt(TRIM_THRESHOLD, NEVER))
