"""The README's table of methods, from the registry: `python -m api.readme` writes it anew."""

import re
from pathlib import Path

from service.methods import METHODS

README = Path(__file__).parents[1] / "README.md"
TABLE = re.compile(r"(?<=<!-- methods -->\n).*?(?=\n<!-- /methods -->)", re.DOTALL)
COLUMNS = ("kind", "family", "paper", "data", "networks (trained)", "forwards / backwards", "sampling steps")


def methods_table() -> str:
    """A row a method, in the order of the registry. Costs are per optimizer step of the student."""
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    for kind, method in METHODS.items():
        settings = method(kind=kind)
        steps = sorted({n for student in settings.student_steps() for n in student})
        rows.append(
            (
                f"`{kind}`",
                method.family,
                method.paper,
                settings.data(),
                f"{method.networks} ({method.trained_networks})",
                f"{method.forwards:g} / {method.backwards:g}",
                ", ".join(map(str, steps)),
            )
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    text = README.read_text()
    assert TABLE.search(text), "the README has lost the marks that its table of methods stands between"
    README.write_text(TABLE.sub(lambda _: methods_table(), text))


if __name__ == "__main__":
    main()
