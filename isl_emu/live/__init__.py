"""The live part of a run, on whichever kernel has netem: `execute` is its beginning and end.

stage (what its steps share) -> containers (sized by roles) -> servers (models) -> traffic (what sends) -> answers (to
questions about the live run, which come through `control`).
"""
