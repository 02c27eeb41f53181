"""One row for each method, in the order of the registry."""

from gaussian import Row

from rows import first

ROWS: dict[str, Row] = {**first.ROWS}
