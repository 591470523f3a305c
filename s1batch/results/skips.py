"""Which rows say that a scan did not call for them, although no scan did say so."""

from __future__ import annotations

import pyarrow as pa

from s1batch.plan_store import PlanStore


def unfounded_skips(plan: PlanStore, part: int, table: pa.Table) -> list[str]:
    """Return the chunks that were not triggered, but depend on no scan, or on one that was not answered.

    Args:
        plan: The plan.
        part: The part's number.
        table: Its rows.
    """
    if "not_triggered" not in table.column("reason").unique().to_pylist():
        return []
    scans = plan.conditions(part) if part < plan.parts() else {}
    lines = table.select(["chunk_key", "outcome", "reason"]).to_pylist()
    answered = {line["chunk_key"] for line in lines if line["outcome"] == "ok"}
    skipped = [line["chunk_key"] for line in lines if line["reason"] == "not_triggered"]
    return [key for key in skipped if scans.get(key) not in answered]
