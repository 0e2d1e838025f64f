"""Greedy decoding of T5 and BART, token for token what ``generate`` writes and several times as fast.

``loop`` is the decoding itself, ``layouts`` says how each family's weights are laid out for it, and ``weights`` notices
when they have changed.
"""

from modtf.decoding.loop import ENGINES, GENERATE, LOOP, Watch, check_engine, decode, obstacle
from modtf.decoding.weights import forget, weights_stamp

__all__ = [
    "ENGINES",
    "GENERATE",
    "LOOP",
    "Watch",
    "check_engine",
    "decode",
    "forget",
    "obstacle",
    "weights_stamp",
]
