"""Measurements as JSON records: one number, its unit, and which direction is better."""

from __future__ import annotations

from typing import Any

from flowplan.utils import checks


def record(
    key: str,
    value: float,
    unit: str,
    direction: str,
    n: int = 1,
    *,
    decimals: int | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """One measurement, ready for `json.dumps`.

    Args:
        key: Path-like name, such as "plan/random/certified_share".
        value: The measured number.
        unit: Unit of the value, such as "ms" or "share".
        direction: "up" if larger values are better, "down" if smaller ones are.
        n: Number of samples behind the value.
        decimals: Decimals that the value is rounded to. Defaults to all of them.
        fields: Further entries, appended in their order.

    Raises:
        ValueError: If `direction` is neither "up" nor "down".
    """
    number = value if isinstance(value, int) else float(value)
    return {
        "key": key,
        "value": number if decimals is None else round(number, decimals),
        "unit": unit,
        "direction": checks.choice("direction", direction, ("up", "down")),
        "n": n,
        **fields,
    }
