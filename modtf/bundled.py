"""Where the bundled files are: inside the installed package, or at the root of a source checkout.

`importlib.resources` finds only the first: an editable install leaves `data/` outside the package.
"""

from __future__ import annotations

from pathlib import Path

from modtf.errors import ModtfError

#: Names that :func:`modtf.load` knows; each is a folder of ``data/``.
BUNDLED_MODELS = ("translator", "pocket")


def bundled(name: str) -> Path:
    """Path of a bundled file or folder, such as ``"pocket"``; raises :class:`ModtfError` if it is missing."""
    package = Path(__file__).parent
    for root in (package / "data", package.parent / "data"):
        if (root / name).exists():
            return root / name
    looked = f"{package / 'data'} and {package.parent / 'data'}"
    raise ModtfError(f"the bundled {name!r} is missing (looked in {looked}); install modtf again")
