"""The figures of a running service, as Prometheus reads them."""

from collections.abc import Mapping

import httpx
from prometheus_client.parser import text_string_to_metric_families


def figures(client: httpx.Client) -> dict[str, list[tuple[Mapping[str, str], float]]]:
    """The values of GET /metrics with their labels, by the name of the series."""
    found: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def figure(client: httpx.Client, name: str, **labels: str) -> float:
    """The sum of the values of a series that have these labels. 0 if there is none."""
    return sum(
        value
        for found, value in figures(client).get(f"lookalike_{name}", [])
        if labels.items() <= found.items()
    )
