"""Sums of norms and spectral norms: maximisers from below, certificates from above."""
