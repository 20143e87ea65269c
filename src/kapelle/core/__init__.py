"""The words and the rules of Kapelle: pure, without I/O, clock or randomness."""
