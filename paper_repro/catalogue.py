"""All claims, in the order of the report."""

from paper_repro import (
    definitions,
    entropy,
    lookup,
    moments,
    note_attention,
    note_gradients,
    note_heads,
    note_layers,
    note_positions,
    particles,
    proposition9,
)
from paper_repro.claim import Claim

CLAIMS: tuple[Claim, ...] = (
    definitions.attention,
    definitions.markov_kernel,
    definitions.boltzmann_gibbs,
    lookup.softmatch,
    lookup.lookup,
    moments.encoding,
    moments.subspace,
    proposition9.attention_kernel,
    proposition9.proposition,
    particles.particles,
    entropy.max_entropy,
    note_attention.theorem1,
    note_attention.theorem2,
    note_attention.theorem3,
    note_attention.general,
    note_heads.self_attention,
    note_heads.multihead,
    note_heads.masked,
    note_layers.encoder_decoder,
    note_layers.pointwise,
    note_positions.positional,
    note_positions.permutation,
    note_gradients.gradients,
)
