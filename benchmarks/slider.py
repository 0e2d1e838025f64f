"""How long the slider takes beyond `generate` itself: from a move to the drawn result, less the assembled model's own time.

    python benchmarks/slider.py

The wait of 10 ms for further moves is counted in. The goal is 20 ms at most.
"""

from __future__ import annotations

import statistics
import time

import torch

import modtf
from modtf.views.explorer import Explorer


def main(moves: int = 40) -> None:
    torch.set_num_threads(1)
    explorer = Explorer(modtf.load("pocket"))
    controller = explorer.controller
    ratios = [ratio for _, ratio in explorer.ratio.options]
    controller.wait()
    overheads = []
    for i in range(moves + len(ratios)):
        wanted = ratios[i % len(ratios)]
        before = controller.state.generation
        started = time.perf_counter()
        explorer.ratio.value = wanted
        state = controller.wait()
        elapsed = 1000 * (time.perf_counter() - started)
        assert state.generation > before and state.result is not None, state.problem
        if i >= len(ratios) and state.result.small is not state.result.full:  # the first round assembles and warms up
            overheads.append(elapsed - state.result.small.milliseconds)
    controller.close()
    ordered = sorted(overheads)
    print(
        f"slider's own overhead over {len(ordered)} moves: median {statistics.median(ordered):.1f} ms, p95 {ordered[int(0.95 * len(ordered))]:.1f} ms"
    )


if __name__ == "__main__":
    main()
