"""The assembly as an editable picture: a button for each layer of both stacks, and one for each joint between two.

The buttons for all original layers and joints exist from the start; the path decides which are visible, and how wide.
A move of the slider therefore updates a few buttons and creates none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ipywidgets as widgets

from modtf.mapping import Assembly, LayerPath, Mapping, StackMapping, start_indices, write_path

_JOINT_WIDTH, _BORDERS = 10, 2  # pixels, as in style.css
_BLANK = "\u00a0"  # with an empty description, the button would keep its old text


class Picture:
    """Both stacks of an assembly as buttons: a click on a block splits it, one on a joint merges its neighbours.

    ``on_touch`` is called with a function that returns the new assembly, or raises :class:`ModtfError` if the change is
    impossible.
    """

    def __init__(self, mapping: Mapping, on_touch: Callable[[Callable[[], Assembly]], None]) -> None:
        self.mapping = mapping
        self._on_touch = on_touch
        self._assembly = mapping.original
        self._drawn: dict[str, LayerPath] = {}
        self.blocks = {s.name: [self._button(s, s.split, i) for i in range(s.depth)] for s in mapping.stacks}
        #: the joint before each layer except the first
        self.joints = {s.name: [self._button(s, s.merge, i) for i in range(1, s.depth)] for s in mapping.stacks}
        self.labels = {s.name: widgets.HTML() for s in mapping.stacks}
        # A block of granularity g is as wide as g blocks with their borders and the joints between them.
        widths = "".join(
            f".modtf .modtf-stack > .modtf-g{g} {{ flex: {g} 1 {(g - 1) * _JOINT_WIDTH + g * _BORDERS}px; }}\n"
            for g in range(1, max(s.depth for s in mapping.stacks) + 1)
        )
        rows = [self._row(s.name) for s in mapping.stacks]
        self.widget = widgets.VBox([widgets.HTML(f"<style>{widths}</style>"), *rows])
        self.draw(mapping.original)

    def draw(self, assembly: Assembly) -> None:
        """Show an assembly, updating only the buttons that change."""
        self._assembly = assembly
        for stack, path in zip(self.mapping.stacks, assembly.paths, strict=True):
            if self._drawn.get(stack.name) != path:
                self._drawn[stack.name] = path
                self._draw_stack(stack.name, path)

    def _draw_stack(self, stack: str, path: LayerPath) -> None:
        words = f"{stack}: {len(path)} layers, {write_path(path)}"
        self.labels[stack].value = f'<span role="img" aria-label="{words}">{stack} · {len(path)}</span>'
        granularity_at = dict(zip(start_indices(path), path, strict=True))
        for i, block in enumerate(self.blocks[stack]):
            g = granularity_at.get(i)
            if g is None:
                _show(block, _BLANK, "", ("modtf-block", "modtf-gone"))
            elif g == 1:
                _show(block, _BLANK, f"{stack} layer {i}: an original layer", ("modtf-block", "modtf-g1"))
            else:
                covered = f"one modularized layer for original layers {i} to {i + g - 1}"
                words = f"{stack} m({g}, {i // g}): {covered}; click to split it"
                _show(block, f"{g}", words, ("modtf-block", "modtf-module", f"modtf-g{g}"))
        for i, joint in enumerate(self.joints[stack], start=1):
            if i in granularity_at:
                words = f"{stack}: merge the blocks that meet between layers {i - 1} and {i}"
                _show(joint, "+", words, ("modtf-joint",))
            else:
                _show(joint, _BLANK, "", ("modtf-joint", "modtf-gone"))

    def _button(self, stack: StackMapping, change: Callable[[LayerPath, int], LayerPath], layer: int) -> Any:
        """A button that applies ``change``, the stack's split or merge, to the current path at ``layer``."""

        def make() -> Assembly:
            path = getattr(self._assembly, stack.name)
            return replace(self._assembly, **{stack.name: change(path, layer)})

        button = widgets.Button()
        button.on_click(lambda _: self._on_touch(make))
        return button

    def _row(self, stack: str) -> Any:
        buttons = [self.blocks[stack][0]]
        for joint, block in zip(self.joints[stack], self.blocks[stack][1:], strict=True):
            buttons += [joint, block]
        row = widgets.HBox([self.labels[stack], *buttons])
        row.add_class("modtf-stack")
        return row


def _show(button: Any, description: str, tooltip: str, classes: tuple[str, ...]) -> None:
    """Update a button with one message for all changes, and with none if nothing changes."""
    if (button.description, button.tooltip, button._dom_classes) != (description, tooltip, classes):
        with button.hold_sync():
            button.description, button.tooltip, button._dom_classes = description, tooltip, classes
