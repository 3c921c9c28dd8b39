"""The passes of the compiler: parameters, blocks, rates, alignment, schedule."""
