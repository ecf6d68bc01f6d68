"""Wan 2.2 as a video prior, through diffusers: I2V-A14B with its two experts, and TI2V-5B."""

from importlib.util import find_spec

if find_spec("diffusers") is None:
    raise ImportError("diffusers: runs Wan 2.2; run `pip install 'diffusers>=0.36,<1'`")
