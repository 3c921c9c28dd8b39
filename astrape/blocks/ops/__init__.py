"""What several families of blocks share: products, DFTs, recurrences, rotary angles, key-value rings, exact tables."""
