"""Stage (b): codebooks, semantic IDs, the tree of their prefixes, and the frozen features of items."""
