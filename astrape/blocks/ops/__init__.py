"""Operations that several families of blocks share: products, DFTs, recurrences, rotary angles, key-value cache, tables."""
