"""JAX's derivatives, compiled as one program: the tests of derivatives spend their time there."""

import jax


def _compiled(transform):
    return lambda f, **options: jax.jit(transform(f, **options))


grad, hessian = _compiled(jax.grad), _compiled(jax.hessian)
jacfwd, jacrev = _compiled(jax.jacfwd), _compiled(jax.jacrev)
