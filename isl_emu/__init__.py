"""isl-emu: an emulator of laser inter-satellite link networks that carries real LLM inference traffic.

Data flows one way through the stages, and each stage is a package:

    scenario -> geometry -> linkplan -> routing -> network -> workload -> results

The first four are pure (numpy in, numpy out, no root). `network` drives the kernel, `machine` decides where it runs,
`run.py` is the only module that knows every stage, and `cli.py` is the command line.
"""
