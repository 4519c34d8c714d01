"""The live page: what arrives, shown in a browser as it arrives.

Pages are made here, on the server; what runs in the browser moves rows about and draws the chart.
Nothing is loaded from elsewhere, and no text of an event is ever taken for markup: templates
escape everything, scripts set text only, and the content security policy would stop the rest.
"""

from __future__ import annotations

from asyncanalytics.collector.page.pages import Pages

__all__ = ["Pages"]
