"""The page's own files, held in memory, each at an address that changes with their content.

So a browser may keep them for ever, and none of another version is ever shown.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from starlette.responses import Response
from starlette.routing import Route

from asyncanalytics.collector.answers import Refused

if TYPE_CHECKING:
    from starlette.requests import Request

FOLDER: Final = Path(__file__).with_name("static")
_TYPES: Final = {
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
_FOR_EVER: Final = {"cache-control": "public, max-age=31536000, immutable"}


class Assets:
    """What lies in static/, vendored files and their licences included."""

    def __init__(self) -> None:
        """Read them."""
        self._files = {
            path.relative_to(FOLDER).as_posix(): path.read_bytes()
            for path in sorted(FOLDER.rglob("*"))
            if path.suffix in _TYPES
        }
        every = hashlib.sha256()
        for name, content in self._files.items():
            every.update(f"{name} {len(content)} ".encode())
            every.update(content)
        self._root = f"/page/static/{every.hexdigest()[:12]}/"

    def route(self) -> Route:
        """Return where they are found."""
        return Route(f"{self._root}{{name:path}}", self._file, methods=["GET"])

    def address(self, name: str) -> str:
        """Return where one of them is found; KeyError for one that is not there."""
        if name not in self._files:
            raise KeyError(name)
        return self._root + name

    async def _file(self, request: Request) -> Response:
        name = request.path_params["name"]
        content = self._files.get(name)
        if content is None:
            raise Refused(404, "not_found", "there is no such file")
        return Response(content, media_type=_TYPES[Path(name).suffix], headers=_FOR_EVER)
