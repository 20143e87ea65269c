"""What a customer is about to buy. Money is whole cents."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Line:
    """So many pieces of one article."""

    article: str
    price: int
    quantity: int = 1


@dataclass
class Cart:
    """A shopping cart."""

    lines: list[Line] = field(default_factory=list)

    def add(self, article: str, price: int, quantity: int = 1) -> None:
        """Put something into the cart."""
        self.lines.append(Line(article, price, quantity))

    def total(self) -> int:
        """Return what is to be paid, in cents."""
        return sum(line.price * line.quantity for line in self.lines)
