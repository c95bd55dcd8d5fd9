"""Count the points that were written to each evaluation."""

import json
import math
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the step."""
    op.add_column("evaluations", sa.Column("points", sa.BigInteger(), nullable=False, server_default="0"))
    connection = op.get_bind()
    points: dict[str, int] = {}
    for evaluation_id, header in connection.execute(sa.text("SELECT evaluation_id, header FROM evaluation_blocks")):
        points[evaluation_id] = points.get(evaluation_id, 0) + _count(json.loads(header))
    update = sa.text("UPDATE evaluations SET points = :points WHERE id = :id")
    for evaluation_id, count in points.items():
        connection.execute(update, {"points": count, "id": evaluation_id})


def _count(header: dict[str, Any]) -> int:
    """Return how many numbers a stored block has, edges of histograms' bins not counted."""
    shapes = [header["values"], header.get("exposure", [0])]
    shapes += [counts for _, _, counts in header.get("histograms", [])]
    return sum(math.prod(shape) for shape in shapes)


def downgrade() -> None:
    """Takes the step back."""
    op.drop_column("evaluations", "points")
