"""Operations that several families of blocks share: DFTs, recurrences, rotary angles, the key-value cache."""
