"""The only door to Flower: records, the in-process grid, and the two apps. Pinned, because it uses private names."""
