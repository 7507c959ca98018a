"""Training over moving links: satellites that hold one model together and agree on its gradients over the lasers.

collectives (who sends which part to whom) -> planned_ways (how long that takes at least, who is beside
whom) -> coordinator (who takes part, and what happens when one is lost) -> ranks, of one of two kinds: light_rank (a
vector of the gradients' size, and a stated computing time) and torch_rank (a real model with real gradients), which
light_job and torch_job start.
"""
