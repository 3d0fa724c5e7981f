"""What of the test rows could already be known from training."""

from dataclasses import dataclass

import polars as pl

from recembed.data.split import Part, Splits
from recembed.schema.feature import Schema

__all__ = ["LeakReport", "leak_check"]


@dataclass(frozen=True)
class LeakReport:
    """What of the test rows could already be known from training.

    Attributes:
        rows: Rows of each part.
        late_rows: Training rows not earlier than the earliest test row; None without a timestamp.
        shared_users: Test users who also have training rows; None without a user feature.
        users: Users in the test rows; None without a user feature.
        repeated_rows: Test rows that equal a training row in every column of the schema.
    """

    rows: dict[Part, int]
    late_rows: int | None
    shared_users: int | None
    users: int | None
    repeated_rows: int

    def describe(self) -> str:
        """Return the findings, one line each."""
        lines = [", ".join(f"{name} {count:,} rows" for name, count in self.rows.items())]
        if self.late_rows is not None:
            lines.append(f"{self.late_rows:,} training rows are not earlier than the earliest test row")
        if self.users is not None:
            lines.append(f"{self.shared_users:,} of {self.users:,} test users also have training rows")
        lines.append(f"{self.repeated_rows:,} test rows equal a training row in every column of the schema")
        return "\n".join(lines)


def leak_check(splits: Splits, schema: Schema) -> LeakReport:
    """Count what leaks from the test rows into training; reads only the columns of ``schema``.

    Which counts should be zero depends on the cut: ``late_rows`` by time, ``shared_users`` by user.
    """
    rows = {name: int(frame.select(pl.len()).collect().item()) for name, frame in splits.items()}
    late = None
    if schema.timestamp is not None:
        time = pl.col(schema.timestamp)
        earliest = splits.test.select(time.min()).collect()
        late = 0
        if rows["test"]:
            late = int(splits.train.select((time >= earliest.to_series().item()).sum()).collect().item())
    shared = users = None
    if user := schema.role("user"):
        ids = splits.test.select(pl.col(user.source)).unique()
        users = int(ids.select(pl.len()).collect().item())
        shared = int(
            ids.join(splits.train, on=user.source, how="semi", nulls_equal=True).select(pl.len()).collect().item()
        )
    return LeakReport(rows, late, shared, users, _count_repeated(splits, schema))


def _count_repeated(splits: Splits, schema: Schema) -> int:
    names = [feature.source for feature in schema.features] + [label.source for label in schema.labels]
    names.append(schema.timestamp or "")
    present = set(splits.train.collect_schema().names())
    columns = [name for name in dict.fromkeys(names) if name in present]
    if not columns:
        return 0
    content = pl.struct(columns).hash().alias("content")
    seen = splits.train.select(content).unique()
    return int(splits.test.select(content).join(seen, on="content", how="semi").select(pl.len()).collect().item())
