"""The network: backbone, words, fusion of item streams, heads, losses."""
