"""Attention as Markov kernels on empirical measures. `import measattn as ma`."""

from measattn import gibbs as gibbs
from measattn import layer as layer
from measattn import lookup as lookup
from measattn import moment as moment
from measattn import pretrained as pretrained
from measattn import wasserstein as wasserstein
from measattn.attention import (
    AttentionKernel,
    CrossAttention,
    MultiHead,
    SelfAttention,
    attention,
)
from measattn.gibbs import SoftmatchKernel, boltzmann_gibbs, log_normaliser
from measattn.kernel import (
    AbstractDiracKernel,
    AbstractMarkovKernel,
    AbstractNonlinearKernel,
    Deterministic,
    Stack,
    expect,
    transport,
)
from measattn.layer import (
    FeedForward,
    LayerNorm,
    Learned,
    Residual,
    RMSNorm,
    Sinusoidal,
    WeightShared,
    post_norm,
    pre_norm,
)
from measattn.lookup import LookupKernel
from measattn.maps import Affine, Function
from measattn.masks import Causal, Masked, OnKey
from measattn.measure import (
    EmpiricalMeasure,
    compact,
    covariance,
    dirac,
    integrate,
    load_measure,
    mean,
    mixture,
    pairs,
    product,
    pushforward,
    states,
    weighted,
)
from measattn.moment import MomentEncoding, moment_projection
from measattn.points import Pair, Token
from measattn.potential import (
    AbstractPotential,
    Additive,
    Bilinear,
    DotProduct,
    Gaussian,
    Interaction,
    Relation,
    Rotary,
)

__version__ = "0.1.0"
