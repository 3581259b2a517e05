"""The playground: one page and its four files, read once from the package. It loads nothing from anywhere else.

The page holds no data; it calls the API like any other client, with the key that the person gives. Our choice.
"""

from pathlib import Path
from typing import Final

from fastapi import FastAPI, HTTPException
from fastapi.responses import Response

FOLDER: Final = Path(__file__).parent / "playground"
KINDS: Final = {
    "index.html": "text/html; charset=utf-8",
    "playground.css": "text/css; charset=utf-8",
    "playground.js": "text/javascript; charset=utf-8",
    "compare.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def add_playground(app: FastAPI) -> None:
    """Serve the playground at `/`."""
    pages = {name: (FOLDER / name).read_bytes() for name in KINDS}

    def page(name: str) -> Response:
        headers = {"content-security-policy": _POLICY, "cache-control": "no-cache"}
        return Response(pages[name], media_type=KINDS[name], headers=headers)

    @app.get("/", include_in_schema=False)
    async def playground() -> Response:
        return page("index.html")

    @app.get("/playground/{name}", include_in_schema=False)
    async def part(name: str) -> Response:
        if name not in KINDS:
            raise HTTPException(404, "no such page")
        return page(name)
