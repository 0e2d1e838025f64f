"""Greedy decoding of T5, BART and their kin (mT5, Marian): the same tokens as ``generate``, several times as fast.

``loop`` is the decoding itself, ``layouts`` prepares each family's weights for it, and ``weights`` detects when they
have changed. In ``drafting`` a small model writes ahead for a large one; ``engines`` chooses who writes.
"""

from modtf.decoding.drafting import Draft, Pace
from modtf.decoding.engines import ENGINES, GENERATE, LOOP, check_length, decode, not_followed, obstacle
from modtf.decoding.loop import Choice, Watch
from modtf.decoding.weights import forget, weights_stamp

__all__ = [
    "ENGINES",
    "GENERATE",
    "LOOP",
    "Choice",
    "Draft",
    "Pace",
    "Watch",
    "check_length",
    "decode",
    "forget",
    "not_followed",
    "obstacle",
    "weights_stamp",
]
