"""All that is known of each value, by layer."""

from collections.abc import Iterator

from mech_arith.reports.figures.evidence import evidence_maps
from mech_arith.reports.figures.registered import Drawing, Tables, figures


@figures("evidence")
def evidence(tables: Tables, title: str, level: float) -> Iterator[Drawing]:
    """A map of each column that has a title for one."""
    if len(tables.get("evidence", ())):
        yield Drawing(
            "evidence", evidence_maps, (tables["evidence"],), {"title": title, "level": level}
        )
