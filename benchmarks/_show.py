"""Show figures that were measured before: `python _show.py figures.json [--plots FOLDER]`."""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path

from _bench import introduce
from _plots import draw


def main() -> None:
    """Print the tables of a file of figures, and draw its charts."""
    parser = argparse.ArgumentParser(prog="_show.py")
    parser.add_argument("json", type=Path, help="what `--json` has written")
    parser.add_argument("--plots", type=Path, help="a folder to draw the figures in, as SVG")
    arguments = parser.parse_args()
    for name, found in json.loads(arguments.json.read_text(encoding="utf-8")).items():
        question = import_module(name)
        results = introduce(name, found)
        question.show(results)
        if arguments.plots and hasattr(question, "charts"):
            draw(question.charts(results), arguments.plots)


if __name__ == "__main__":
    main()
