"""Outside truths that isl-emu must reproduce, recomputed by its own stages; `isl-emu validate` runs them."""
