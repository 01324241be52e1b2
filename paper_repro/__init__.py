"""The ledger: every statement about attention that measattn stands on, checked by a run.

``python -m paper_repro`` (or ``measattn reproduce``) runs every claim and writes one HTML report.
A claim is a statement with hypotheses, numeric contracts against an independent oracle, and a
negative control that must fail; its verdict is derived from that evidence and never typed in.

[VBT20] is *A Mathematical Theory of Attention* (J. Vuckovic, A. Baratin, R. Tachet des Combes,
arXiv 2007.02876).
"""
