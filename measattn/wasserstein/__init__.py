"""Exact Wasserstein-1 distances with a certificate: `w1` and what it returns."""

from measattn.wasserstein.problem import Problem as Problem
from measattn.wasserstein.solution import Plan as Plan
from measattn.wasserstein.solution import TransportError as TransportError
from measattn.wasserstein.solution import W1Solution as W1Solution
from measattn.wasserstein.solvers import Assignment as Assignment
from measattn.wasserstein.solvers import Line as Line
from measattn.wasserstein.solvers import NetworkSimplex as NetworkSimplex
from measattn.wasserstein.w1 import w1 as w1
