"""What a re-check says: each number as claimed and as found."""

from dataclasses import dataclass


class Rejected(Exception):
    """A part of a certificate that cannot be so; the message says which and why."""


@dataclass(frozen=True)
class Item:
    """One number or property.

    Attributes:
        name: what it is.
        claimed: as the file has it; None for a property.
        recomputed: as it was found.
        allowance: by how much the two may differ, to the safe side.
        accepted: the verdict.
        reason: why, in words.
    """

    name: str
    claimed: float | None
    recomputed: float | None
    allowance: float
    accepted: bool
    reason: str

    def __str__(self) -> str:
        verdict = "accepted" if self.accepted else "REJECTED"
        numbers = ""
        if self.claimed is not None and self.recomputed is not None:
            numbers = (
                f"claimed {self.claimed:.15g}, recomputed {self.recomputed:.15g} "
                f"(allowance {self.allowance:.1e}): "
            )
        return f"{verdict}  {self.name}: {numbers}{self.reason}"


@dataclass(frozen=True)
class Report:
    """The verdict on a certificate.

    Attributes:
        file: its name.
        items: what was checked, in order; after a rejection that leaves nothing to go on, no more.
    """

    file: str
    items: tuple[Item, ...]

    @property
    def accepted(self) -> bool:
        """Whether everything was."""
        return bool(self.items) and all(item.accepted for item in self.items)

    def __str__(self) -> str:
        count = sum(not item.accepted for item in self.items)
        verdict = "accepted" if self.accepted else f"REJECTED ({count} of {len(self.items)})"
        return "\n".join([f"{self.file}: {verdict}", *(f"  {item}" for item in self.items)])
