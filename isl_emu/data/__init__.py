"""Data that ships with isl-emu."""
