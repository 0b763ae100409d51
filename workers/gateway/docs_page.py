"""`/docs`: the OpenAPI document for people, on one page that loads nothing from anywhere."""

import json
from base64 import b64encode
from hashlib import sha256
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter()

STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
section { border-top: 1px solid #8884; padding: .5rem 0 }
code, pre { font: .9em ui-monospace, monospace }
pre { background: #8882; padding: .75rem; overflow-x: auto; border-radius: .25rem }
table { border-collapse: collapse; width: 100% }
td { border-top: 1px solid #8884; padding: .25rem 1rem .25rem 0; vertical-align: top }
td:first-child { white-space: nowrap; width: 12rem }
summary { cursor: pointer }
"""
POLICY = f"default-src 'none'; style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'; base-uri 'none'"


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> HTMLResponse:
    """Show what /openapi.json says."""
    return HTMLResponse(render(request.app.openapi()), headers={"Content-Security-Policy": POLICY, "X-Frame-Options": "DENY"})


def render(document: dict[str, Any]) -> str:
    """Return the page of an OpenAPI document."""
    title = escape(document["info"]["title"])
    schemes = "".join(_row(name, scheme.get("description", "")) for name, scheme in _schemes(document))
    operations = "".join(
        _operation(method.upper(), path, operation, document)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{STYLE}</style><h1>{title}</h1>"
        f'<p>The same for programs: <a href="openapi.json">openapi.json</a>.</p>'
        f"<h2>Authorization: Bearer</h2>{_table(schemes)}{operations}</html>"
    )


def _schemes(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return list(document.get("components", {}).get("securitySchemes", {}).items())


def _operation(method: str, path: str, operation: dict[str, Any], document: dict[str, Any]) -> str:
    parts = [f'<section id="{escape(operation["operationId"])}"><h2><code>{method} {escape(path)}</code></h2>']
    parts.append(f"<p><strong>{escape(operation.get('summary', ''))}.</strong> {_text(operation.get('description', ''))}</p>")
    if operation.get("security"):
        parts.append("<p>Needs a token.</p>")
    if parameters := operation.get("parameters"):
        rows = "".join(_row(each["name"], each.get("description", "")) for each in parameters)
        parts.append(f"<h3>Headers and parameters</h3>{_table(rows)}")
    if body := operation.get("requestBody"):
        parts.append(f"<h3>Body{'' if body.get('required') else ' (may be absent)'}</h3>")
        for media_type, content in body["content"].items():
            for name, example in content.get("examples", {}).items():
                parts.append(f"<p>{escape(name)} (<code>{escape(media_type)}</code>)</p>{_json(example['value'])}")
            parts.append(_folded("Schema", content["schema"], document))
    parts.append("<h3>Answers</h3>")
    rows = "".join(
        _row(status, response["description"], ", ".join(response.get("headers", {})))
        for status, response in sorted(operation["responses"].items())
    )
    parts.append(_table(rows))
    for status, response in operation["responses"].items():
        for content in response.get("content", {}).values():
            if status.startswith("2") and "example" in content:
                parts.append(f"<p>{status}, for example</p>{_json(content['example'])}")
    return "".join(parts) + "</section>"


def _text(markdown: str) -> str:
    """Return a description with its `code` as code; nothing else of Markdown is used."""
    plain, *rest = escape(markdown).split("`")
    return plain + "".join(f"{'<code>' if i % 2 == 0 else '</code>'}{part}" for i, part in enumerate(rest))


def _row(name: str, description: str, headers: str = "") -> str:
    note = f" <em>Headers: {escape(headers)}.</em>" if headers else ""
    return f"<tr><td><code>{escape(name)}</code></td><td>{_text(description)}{note}</td></tr>"


def _table(rows: str) -> str:
    return f"<table>{rows}</table>"


def _json(value: Any) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2))}</pre>"


def _folded(title: str, schema: dict[str, Any], document: dict[str, Any]) -> str:
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return f"<details><summary>{title}</summary>{_json(schema)}</details>"
