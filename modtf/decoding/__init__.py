"""Greedy decoding of T5, BART and their kin (mT5, Marian): the same tokens as ``generate``, several times as fast.

``loop`` is the decoding itself, ``layouts`` prepares each family's weights for it, and ``weights`` detects when they
have changed.
"""

from modtf.decoding.loop import ENGINES, GENERATE, LOOP, Watch, check_engine, decode, obstacle
from modtf.decoding.weights import forget, weights_stamp

__all__ = ["ENGINES", "GENERATE", "LOOP", "Watch", "check_engine", "decode", "forget", "obstacle", "weights_stamp"]
