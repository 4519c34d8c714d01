"""The load: calls as a shop's back end makes them, full ones and small ones.

Promises:
- A full call is an `Order Completed` of 12 properties, two nested products among them; as JSON,
  with what a client adds, it has about 690 bytes. A small call is an `Added File` of 2.
- Every subject and every round gets the same calls, made before anything is timed.
- What arrived can be told from a change: `expected` finds the call that an event's own
  properties name.
"""

from __future__ import annotations

from itertools import cycle, islice
from typing import Any, Literal

Size = Literal["full", "small"]

EVENT = "Order Completed"  # of the full calls
EVENTS: dict[Size, str] = {"full": EVENT, "small": "Added File"}
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


def file(number: int) -> dict[str, Any]:
    """Return one file's properties."""
    return {"file_id": f"f-{number:06d}", "kilobytes": number % 97}


def orders() -> list[dict[str, Any]]:
    """Return the different orders that the full calls speak of."""
    return [order(number) for number in range(_VARIANTS)]


def files() -> list[dict[str, Any]]:
    """Return the different files that the small calls speak of."""
    return [file(number) for number in range(_VARIANTS)]


def calls(count: int, size: Size = "full") -> list[tuple[str, dict[str, Any]]]:
    """Return the user ids and properties of `count` calls."""
    made = orders() if size == "full" else files()
    different = [(f"user-{number:06d}", each) for number, each in enumerate(made)]
    return list(islice(cycle(different), count))


def fresh(count: int) -> Any:
    """Yield `count` full calls, each with properties of its own: nothing is shared or kept."""
    for number in range(count):
        yield f"user-{number:06d}", order(number % _VARIANTS)


_EXPECTED = {
    **{each["order_id"]: (EVENTS["full"], each) for each in orders()},
    **{each["file_id"]: (EVENTS["small"], each) for each in files()},
}


def expected(properties: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the event's name and the properties of the call that these belong to."""
    return _EXPECTED[properties.get("order_id") or properties["file_id"]]
