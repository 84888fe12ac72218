"""What only runs in the guests that ``run`` boots: NICs, and tests of other kernels."""
