"""One row for each method."""

from gaussian import Row

from rows import adversarial, consistency, first, fisher, flow_maps, flows, regression, scores, tangents

ROWS: dict[str, Row] = {
    **first.ROWS,
    **tangents.ROWS,
    **regression.ROWS,
    **scores.ROWS,
    **fisher.ROWS,
    **flows.ROWS,
    **flow_maps.ROWS,
    **consistency.ROWS,
    **adversarial.ROWS,
}
