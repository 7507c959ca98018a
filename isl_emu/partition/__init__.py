"""A plan cut into parts, each for a kernel of its own: which nodes are where, and which links cross."""
