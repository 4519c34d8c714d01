"""A small web shop for the demo: what its visitors do, and what it says of that to analytics.

The same seed gives the same visitors, who do the same things in the same order; only the times
and the messageIds differ. All six calls are made, as a shop's back end would make them.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from asyncanalytics.receipts import Receipt
    from asyncanalytics.verbs import Verbs

_PRODUCTS = (
    ("kettle-1", "Gooseneck Kettle", "Kettles", Decimal("64.90")),
    ("kettle-2", "Travel Kettle", "Kettles", Decimal("29.50")),
    ("pot-1", "Glass Teapot", "Teapots", Decimal("38.00")),
    ("pot-2", "Iron Teapot", "Teapots", Decimal("119.00")),
    ("tea-1", "Darjeeling First Flush, 100 g", "Tea", Decimal("18.75")),
    ("tea-2", "Sencha, 100 g", "Tea", Decimal("14.20")),
    ("tea-3", "Assam, 250 g", "Tea", Decimal("12.40")),
    ("tea-4", "Rooibos, 250 g", "Tea", Decimal("8.95")),
    ("cup-1", "Tasting Cup", "Cups", Decimal("9.50")),
    ("cup-2", "Double-walled Glass", "Cups", Decimal("13.30")),
    ("tin-1", "Storage Tin", "Accessories", Decimal("11.00")),
    ("sieve-1", "Fine Strainer", "Accessories", Decimal("7.80")),
)
_CITIES = (("Lisbon", "PT"), ("Graz", "AT"), ("Tampere", "FI"), ("Nagoya", "JP"), ("Austin", "US"))
_BROWSERS = (
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/18.5 Safari/605",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/138.0 Safari/537.36",
)
_CAMPAIGNS = (
    {"name": "spring", "source": "newsletter", "medium": "email"},
    {"name": "brand", "source": "search", "medium": "cpc", "term": "loose tea"},
)
_PLANS = ("free", "regular", "connoisseur")
_INDUSTRIES = ("Hotels", "Software", "Publishing", "Cafés")
_HESITATION = (0.02, 0.12)  # seconds between two things that a visitor does
_APP_SHARE = 0.2
_SUBJECTS = {
    "identify": "userId",
    "track": "event",
    "page": "name",
    "screen": "name",
    "group": "groupId",
    "alias": "userId",
}
"""The wire's name of what each verb takes first."""


@dataclass(frozen=True, slots=True)
class Said:
    """One call that was accepted: its receipt, and what it was given, by the wire's names."""

    receipt: Receipt
    fields: dict[str, Any]
    seconds: float
    """How long the caller was held up."""


class Shop:
    """The shop's counter: every call goes through `say`, which remembers what was said."""

    def __init__(self, analytics: Verbs, *, seed: int, pace: float = 1.0) -> None:
        """Open, with a client that is started; at a pace of 0 nobody hesitates."""
        self.analytics = analytics
        self.seed = seed
        self.pace = pace
        self.said: list[Said] = []
        self.visitors: int = 0
        """How many have come so far."""

    async def visit(self, number: int) -> None:
        """Let one visitor come, look around, perhaps buy, and go."""
        self.visitors += 1
        await Visitor(self, number).visit()

    async def say(self, verb: str, subject: str | None = None, /, **fields: Any) -> None:
        """Make one call of the client, and remember it."""
        fields["timestamp"] = _now()
        began = time.perf_counter()
        receipt = await getattr(self.analytics, verb)(subject, **fields)
        seconds = time.perf_counter() - began
        given = {_wire_name(name): value for name, value in fields.items()}
        if subject is not None:
            given[_SUBJECTS[verb]] = subject
        self.said.append(Said(receipt, {"type": verb} | given, seconds))


class Visitor:
    """One visitor, on the web or in the app."""

    def __init__(self, shop: Shop, number: int) -> None:
        """Everything about a visitor follows from the shop's seed and the number."""
        self._shop = shop
        self._number = number
        self._chance = chance = Random(f"{shop.seed}/{number}")  # noqa: S311 - a story, no secret
        self._anonymous_id = str(UUID(int=chance.getrandbits(128), version=4))
        self._user_id: str | None = None
        self._city, self._country = chance.choice(_CITIES)
        self._in_app = chance.random() < _APP_SHARE
        self._context = self._app_context() if self._in_app else self._web_context()
        self._cart: list[dict[str, Any]] = []

    async def visit(self) -> None:
        """Come, browse, perhaps log in, perhaps order."""
        await self._view("Home", path="/")
        for _ in range(self._chance.randint(1, 4)):
            await self._browse()
        if self._chance.random() < 0.45:
            await self._log_in()
        if self._cart:
            await self._check_out()

    async def _browse(self) -> None:
        sku, name, category, price = self._chance.choice(_PRODUCTS)
        product = {"product_id": sku, "name": name, "category": category, "price": price}
        await self._view("Product", path=f"/p/{sku}", category=category)
        await self._track("Product Viewed", product | {"currency": "EUR"})
        if self._chance.random() < 0.4:
            line = product | {"quantity": self._chance.randint(1, 3), "gift": False}
            self._cart.append(line)
            await self._track("Product Added", line | {"currency": "EUR"})

    async def _log_in(self) -> None:
        user_id = f"customer-{self._number:06d}"
        await self._hesitate()
        await self._shop.say("alias", user_id, previous_id=self._anonymous_id)
        self._user_id = user_id
        traits = {
            "email": f"{user_id}@example.com",
            "plan": self._chance.choice(_PLANS),
            "address": {"city": self._city, "country": self._country},
            "newsletter": self._chance.random() < 0.5,
        }
        await self._say("identify", user_id, traits=traits)
        await self._track("Signed In", {"method": self._chance.choice(("password", "passkey"))})
        if self._chance.random() < 0.3:
            await self._join_company()

    async def _join_company(self) -> None:
        number = self._chance.randint(1, 40)
        traits = {
            "name": f"Company {number}",
            "industry": self._chance.choice(_INDUSTRIES),
            "employees": 5 * number,
        }
        await self._say("group", f"company-{number:02d}", traits=traits)

    async def _check_out(self) -> None:
        value = sum((line["price"] * line["quantity"] for line in self._cart), Decimal(0))
        order = {
            "order_id": f"order-{self._number:06d}",
            "value": value,
            "revenue": value,
            "currency": "EUR",
            "products": self._cart,
        }
        await self._view("Checkout", path="/checkout")
        await self._track("Checkout Started", order)
        if self._user_id is not None and self._chance.random() < 0.8:
            await self._track("Order Completed", order | {"shipping": Decimal("4.90")})

    async def _view(self, name: str, *, path: str, category: str | None = None) -> None:
        fields = {} if category is None else {"category": category}
        if self._in_app:
            await self._say("screen", name, properties={"screen": path}, **fields)
        else:
            url = f"https://shop.example.com{path}"
            properties = {"path": path, "url": url, "title": f"{name} | the tea shop"}
            await self._say("page", name, properties=properties, **fields)

    async def _track(self, event: str, properties: dict[str, Any]) -> None:
        await self._say("track", event, properties=properties)

    async def _say(self, verb: str, subject: str, **fields: Any) -> None:
        """Say it with what is known of the visitor."""
        await self._hesitate()
        if verb != "identify" and self._user_id is not None:
            fields["user_id"] = self._user_id
        fields |= {"anonymous_id": self._anonymous_id, "context": self._context}
        await self._shop.say(verb, subject, **fields)

    async def _hesitate(self) -> None:
        await asyncio.sleep(self._shop.pace * self._chance.uniform(*_HESITATION))

    def _web_context(self) -> dict[str, Any]:
        context: dict[str, Any] = {
            "ip": f"192.0.2.{self._chance.randint(1, 254)}",
            "locale": self._chance.choice(("en-GB", "de-AT", "pt-PT", "ja-JP")),
            "userAgent": self._chance.choice(_BROWSERS),
        }
        if self._chance.random() < 0.3:
            context["campaign"] = self._chance.choice(_CAMPAIGNS)
        return context

    def _app_context(self) -> dict[str, Any]:
        system, version = self._chance.choice((("iOS", "18.5"), ("Android", "15")))
        return {
            "app": {"name": "Tea Shop", "version": "3.2.0"},
            "os": {"name": system, "version": version},
            "device": {"id": f"device-{self._number}", "type": system.lower()},
        }


def _now() -> datetime:
    """Return the moment in milliseconds, which is what the wire carries."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1_000 * 1_000)


def _wire_name(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(each.capitalize() for each in rest)
