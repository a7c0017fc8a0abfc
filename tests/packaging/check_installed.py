"""Checks an installed wheel from inside its environment: every package comes from it, with its data."""

import sys
from importlib import import_module
from importlib.resources import files
from pathlib import Path

PACKAGES = ("verifier", "attacks", "synth", "nets", "aureole")


def main() -> int:
    """0 if the packages are installed apart from the checkout (the first argument) and carry their data."""
    checkout = Path(sys.argv[1]).resolve()
    for name in PACKAGES:
        module = import_module(name)
        place = Path(str(module.__file__)).resolve()
        if checkout in place.parents:
            sys.stderr.write(f"check_installed: {name} comes from the checkout ({place}), not from the wheel\n")
            return 1
        if not files(module).joinpath("py.typed").is_file():
            sys.stderr.write(f"check_installed: {name} lacks py.typed, so its types are lost to users\n")
            return 1
    data = files("nets").joinpath("data")
    suffixes = {Path(entry.name).suffix for entry in data.iterdir()}
    missing = {".onnx", ".npz", ".json"} - suffixes
    if missing:
        sys.stderr.write(f"check_installed: nets/data has no {', '.join(sorted(missing))} file\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
