"""The derivative of a layer at a measure, as far as closed forms go, and by jvp and vjp beyond."""
