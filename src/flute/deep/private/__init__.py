"""Networks trained privately: few steps over all patients, gradients bounded, sums noised."""
