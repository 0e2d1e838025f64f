"""The model as a picture that can be touched: a button for each block of both stacks, and one between each two.

There is a button for every original layer and every joint from the start; the path decides which are shown and how wide. So a move of
the slider changes a few buttons and builds none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from modtf.mapping import Assembly, Mapping, Path, merge, split, start_indices, write_path

_STACKS = ("encoder", "decoder")
_JOINT_WIDTH, _BORDERS = 10, 2  # pixels, as in style.css
_BLANK = "\u00a0"  # an empty description would leave the former one on the button


class Picture:
    """``on_touch`` is called with the function that makes the new assembly; it raises :class:`ModtfError` where a move is impossible."""

    def __init__(self, mapping: Mapping, on_touch: Callable[[Callable[[], Assembly]], None]) -> None:
        self.mapping = mapping
        self._on_touch = on_touch
        self._assembly = mapping.original
        self._drawn: dict[str, Path] = {}
        depths = {"encoder": mapping.encoder_depth, "decoder": mapping.decoder_depth}
        self._granularities = {"encoder": mapping.encoder_granularities, "decoder": mapping.decoder_granularities}
        self.blocks = {stack: [self._button(stack, "block", i) for i in range(depths[stack])] for stack in _STACKS}
        #: the joint before each layer but the first
        self.joints = {stack: [self._button(stack, "joint", i) for i in range(1, depths[stack])] for stack in _STACKS}
        self.labels = {stack: widgets.HTML() for stack in _STACKS}
        # A block of g layers takes the place of g blocks, with their borders, and of the joints between them.
        widths = "".join(
            f".modtf .modtf-stack > .modtf-g{g} {{ flex: {g} 1 {(g - 1) * _JOINT_WIDTH + g * _BORDERS}px; }}\n"
            for g in range(1, max(depths.values()) + 1)
        )
        self.widget = widgets.VBox([widgets.HTML(f"<style>{widths}</style>"), *(self._row(stack) for stack in _STACKS)])
        self.draw(mapping.original)

    def draw(self, assembly: Assembly) -> None:
        """Show an assembly; touches only the buttons that change."""
        self._assembly = assembly
        for stack, path in zip(_STACKS, (assembly.encoder, assembly.decoder), strict=True):
            if self._drawn.get(stack) == path:
                continue
            self._drawn[stack] = path
            self.labels[
                stack
            ].value = f'<span role="img" aria-label="{stack}: {len(path)} layers, {write_path(path)}">{stack} · {len(path)}</span>'
            widths = dict(zip(start_indices(path), path, strict=True))
            for i, block in enumerate(self.blocks[stack]):
                g = widths.get(i, 0)
                if g == 1:
                    _show(block, _BLANK, f"{stack} layer {i}: an original layer", ("modtf-block", "modtf-g1"))
                elif g:
                    words = f"{stack} m({g}, {i // g}): one modularized layer for original layers {i} to {i + g - 1}; click to split it"
                    _show(block, f"{g}", words, ("modtf-block", "modtf-module", f"modtf-g{g}"))
                else:
                    _show(block, _BLANK, "", ("modtf-block", "modtf-gone"))
            for i, joint in enumerate(self.joints[stack], start=1):
                words = f"{stack}: merge what meets between layers {i - 1} and {i}" if i in widths else ""
                _show(
                    joint,
                    "+" if i in widths else _BLANK,
                    words,
                    ("modtf-joint",) if i in widths else ("modtf-joint", "modtf-gone"),
                )

    def _button(self, stack: str, kind: str, layer: int) -> Any:
        button = widgets.Button()
        change = split if kind == "block" else merge

        def touched(_: Any) -> None:
            def make() -> Assembly:
                paths = {"encoder": self._assembly.encoder, "decoder": self._assembly.decoder}
                paths[stack] = change(paths[stack], layer, self._granularities[stack])
                return Assembly(**paths)

            self._on_touch(make)

        button.on_click(touched)
        return button

    def _row(self, stack: str) -> Any:
        buttons = [self.blocks[stack][0]]
        for joint, block in zip(self.joints[stack], self.blocks[stack][1:], strict=True):
            buttons += [joint, block]
        row = widgets.HBox([self.labels[stack], *buttons])
        row.add_class("modtf-stack")
        return row


def _show(button: Any, description: str, tooltip: str, classes: tuple[str, ...]) -> None:
    """One message for all that changes, and none where nothing does."""
    if (button.description, button.tooltip, button._dom_classes) != (description, tooltip, classes):
        with button.hold_sync():
            button.description, button.tooltip, button._dom_classes = description, tooltip, classes
