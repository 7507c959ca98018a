"""Outside truths that isl-emu must reproduce, recomputed by its own packages; `isl-emu validate` runs them."""
