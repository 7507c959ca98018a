"""One model over several satellites: its layers are shared out, and what passes between them crosses the lasers.

Two engines. `llama-rpc` is llama.cpp's own server at the head, whose other satellites lend it their processors through
llama.cpp's RPC: hub and spoke. `pipeline` passes activations from satellite to satellite by torch.distributed: a ring.
"""
