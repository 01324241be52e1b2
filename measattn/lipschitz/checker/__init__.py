"""An independent re-check of certificates: NumPy, SciPy and the standard library, nothing else.

It shares no code with what wrote them and trusts no number in the file. The imports here are
relative, so that the folder also works on its own, copied to where there is no JAX.
"""

from .report import Item, Report
from .verify import verify

__all__ = ["Item", "Report", "verify"]
