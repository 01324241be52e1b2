"""One thread for BLAS between calls of XLA.

Idle threads of OpenBLAS spin for a while, and keep those of XLA from working.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import scipy.linalg  # noqa: F401  (its BLAS must be loaded before it can be found)
from threadpoolctl import ThreadpoolController


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """While this is open BLAS has one thread; afterwards as many as before."""
    with _found().limit(limits=1, user_api="blas"):
        yield


@cache
def _found() -> ThreadpoolController:
    # to look for them takes a millisecond or more each time
    return ThreadpoolController()
