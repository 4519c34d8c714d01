"""The load: `Order Completed` track calls as a shop's back end makes them.

Promises:
- Each call has 12 properties, two nested products among them; as JSON, with what a client adds,
  it has about 690 bytes.
- Every subject and every round gets the same calls, made before anything is timed.
"""

from __future__ import annotations

from itertools import cycle, islice
from typing import Any

EVENT = "Order Completed"
_VARIANTS = 1_000  # different calls, so that no client lives off the caches of a single one


def order(number: int) -> dict[str, Any]:
    """Return one order's properties."""
    return {
        "order_id": f"o-{number:06d}",
        "checkout_id": f"c-{number * 7919:07d}",
        "affiliation": "Harbour",
        "total": 61.4,
        "revenue": 52.25,
        "shipping": 4.95,
        "tax": 4.2,
        "discount": 3,
        "coupon": "AUTUMN",
        "currency": "EUR",
        "first_order": number % 2 == 0,
        "products": [
            _product("tea-assam-250", "Assam, 250 g", 14.5, 2),
            _product("pot-09", "Cast-iron teapot", 26.25, 1),
        ],
    }


def _product(sku: str, name: str, price: float, quantity: int) -> dict[str, Any]:
    return {
        "product_id": sku,
        "sku": sku,
        "name": name,
        "price": price,
        "quantity": quantity,
        "category": "Tea",
    }


def orders() -> list[dict[str, Any]]:
    """Return the different orders that the calls speak of."""
    return [order(number) for number in range(_VARIANTS)]


def calls(count: int) -> list[tuple[str, dict[str, Any]]]:
    """Return the user ids and properties of `count` calls."""
    different = [(f"user-{number:06d}", each) for number, each in enumerate(orders())]
    return list(islice(cycle(different), count))
