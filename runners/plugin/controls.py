"""Write ``controls.hpp``: parameters for the controls of the package that ships, so that they are there without it."""

import json
import sys
from pathlib import Path

OWN = ("speaker", "pitch")
"""Controls that the plugin sets by parameters of its own: voice and pitch."""


def main(manifest: str, target: str) -> None:
    """Read a manifest and write a header, unless it says the same already."""
    rows = []
    for control in json.loads(Path(manifest).read_text())["controls"]:
        name = control["name"]
        if name in OWN or control["channels"] != 1:
            continue
        low, high = control["min"] or 0.0, 1.0 if control["max"] is None else control["max"]
        default = (control["default"] or [low])[0]
        whole = "true" if name == "seed" else "false"
        words = ", ".join(json.dumps(word, ensure_ascii=False) for word in (name, name.capitalize(), control["unit"]))
        rows.append(f"    {{{words}, {default}f, {low}f, {high}f, {whole}}},")
    text = "\n".join(["// Written by controls.py.", f"constexpr Shipped kShipped[{len(rows)}] = {{", *rows, "};", ""])
    if not Path(target).is_file() or Path(target).read_text() != text:
        Path(target).write_text(text)


main(*sys.argv[1:])
