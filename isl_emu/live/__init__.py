"""The live part of a run, on whichever kernel has netem: `execute` is its beginning and end.

It builds the network, starts the containers and the parts, and walks the emulated time; `course` pauses and ends it,
`control` brings questions from a second terminal, and `answers` answers them.
"""
