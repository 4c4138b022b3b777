"""What all parts of a build's recipe have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator


class RecipePart(BaseModel):
    """Base of every part: frozen, no unknown keys, finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StagePart(RecipePart):
    """What every stage has.

    Attributes:
        name: Unique in the recipe, and the name of the stage's folder; default: its kind.
        reads: Where its items come from: ``source``, or the name of an earlier stage, whose kept rows are read.
    """

    name: str = Field(default="", pattern=r"^[A-Za-z0-9_-]*$", max_length=60)
    reads: str = "source"

    @field_validator("name")
    @classmethod
    def _not_taken(cls, name: str) -> str:
        if name == "source":
            raise ValueError("a stage cannot be called 'source': that is where the first rows come from")
        return name
