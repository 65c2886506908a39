"""The endpoint as an OpenAPI 3.1 document: what it checks itself. The rest of a request is for vLLM."""

from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from trimtab.recipes.serve import RequestLimits
from trimtab.serve.content import ITEMS, MEDIA_ENDINGS, TEXT, TOOLS
from trimtab.serve.requests import CLOSED, RESERVED, number_limits

Schema = dict[str, Any]

_TEXT_OR_NULL = {"type": ["string", "null"]}
_NO_MEDIA = {"not": {"anyOf": [{"pattern": f"({'|'.join(MEDIA_ENDINGS)})$"}, {"const": "input_audio"}]}}
_PART = {"type": "object", "propertyNames": _NO_MEDIA, "properties": {"type": {"enum": list(TEXT)}}}
_CONTENT = {"anyOf": [_TEXT_OR_NULL, {"type": "array", "items": _PART}]}
_MESSAGE = {"type": "object", "properties": {"role": {"type": "string"}, "content": _CONTENT}}
_ITEM: Schema = {
    "type": "object",
    "anyOf": [{"required": ["type"]}, {"required": ["role"]}],
    "properties": {"type": {"enum": list(ITEMS)}} | dict.fromkeys(("content", "output", "summary"), _CONTENT),
}
_NAMED: Schema = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
_BESIDE: Schema = {"properties": {"name": {"type": "string"}, "function": False}, "required": ["name"]}
_TOOL: Schema = {
    "type": "object",
    "anyOf": [{"required": ["function"]}, _BESIDE],
    "properties": {"type": {"enum": list(TOOLS)}, "function": _NAMED},
}
_TOKENS = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}}
_SWITCHES: Schema = {
    "type": ["object", "null"],
    "propertyNames": {"not": {"enum": list(RESERVED)}},
    "additionalProperties": {"type": ["string", "number", "boolean"], "minimum": -(2**53), "maximum": 2**53},
}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": _TEXT_OR_NULL,
                "code": {"type": ["string", "integer", "null"]},
            },
        }
    },
}
_STATUSES = {
    400: "No request, or one that asks for what is not served",
    404: "No such model, or none that this key opens",
    408: "The request did not come whole in time",
    413: "The request's body is too large",
    429: "A limit of this key is reached; Retry-After says for how long",
    500: "The engine failed",
    503: "The model's engine is not ready, or ended",
}
_KEY = {401: "No valid key"}
_NO_KEY = {403: "A web page that is not listed, or a host that is not this machine's loopback"}


def described(limits: Callable[[], RequestLimits], needs_key: bool) -> Callable[[Request], Awaitable[Response]]:
    """The handler of ``/openapi.json``; ``limits``: those of now."""

    async def openapi(request: Request) -> Response:
        return JSONResponse(openapi_document(limits(), needs_key))

    return openapi


def openapi_document(limits: RequestLimits, needs_key: bool) -> Schema:
    """The document of an endpoint with these limits."""
    statuses = (_KEY if needs_key else _NO_KEY) | _STATUSES
    text = {"type": "string", "maxLength": limits.prompt_characters}
    several = {"type": "array", "minItems": 1, "maxItems": limits.n}
    prompt = {"anyOf": [text, _TOKENS, several | {"items": text}, several | {"items": _TOKENS}]}
    messages = {"type": "array", "items": _MESSAGE}
    request_input = {"anyOf": [text, {"type": "array", "items": _ITEM}]}
    document: Schema = {
        "openapi": "3.1.0",
        "info": {"title": "trimtab", "version": version("trimtab")},
        "paths": {
            "/health": {"get": _get("health", "Whether the endpoint is alive", [200]) | {"security": []}},
            "/ready": {"get": _get("ready", "Whether every engine is verified", [200, 503]) | {"security": []}},
            "/v1/models": {"get": _get("models", "The models that are ready", [200])},
            "/v1/chat/completions": _post("chat", "An answer to messages", "Chat", statuses),
            "/v1/completions": _post("completion", "What comes after a prompt", "Completion", statuses),
            "/v1/responses": _post("response", "An answer to input items; nothing is kept", "Response", statuses),
        },
        "components": {
            "schemas": {
                "Error": _ERROR,
                "Chat": _request({"messages": messages, "logprobs": {"type": ["boolean", "null"]}}, limits),
                "Completion": _request({"prompt": prompt}, limits),
                "Response": _request({"input": request_input, "instructions": _TEXT_OR_NULL}, limits),
            }
        },
    }
    document["paths"]["/v1/models"]["get"]["responses"] |= _errors(_KEY if needs_key else _NO_KEY)
    if needs_key:
        document["security"] = [{"bearer": []}]
        document["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    return document


def _request(own: Schema, limits: RequestLimits) -> Schema:
    """A request of one path. The first of its ``own`` fields must be given."""
    properties: Schema = {"model": {"type": "string"}, "stream": {"type": ["boolean", "null"]}}
    for field, (least, most) in number_limits(limits).items():
        bounds = {"minimum": least or 0} | ({} if most is None else {"maximum": most})
        properties[field] = {"type": ["integer", "null"], "format": "int64"} | bounds
    stops = {"type": "array", "maxItems": limits.stop, "items": {"type": "string"}}
    properties |= {
        "stop": {"anyOf": [_TEXT_OR_NULL, stops]},
        "tools": {"type": ["array", "null"], "items": _TOOL},
        "chat_template_kwargs": _SWITCHES,
    }
    for field, why in CLOSED.items():
        properties[field] = {"enum": [None, False], "description": f"Not served: {why}"}
    required = ["model", next(iter(own))]
    return {"type": "object", "required": required, "properties": properties | own, "additionalProperties": True}


def _post(identity: str, summary: str, schema: str, statuses: dict[int, str]) -> Schema:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
    answer: Schema = {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {}}
    return {
        "post": {
            "operationId": identity,
            "summary": summary,
            "requestBody": {"required": True, "content": content},
            "responses": {"200": {"description": "The engine's answer", "content": answer}} | _errors(statuses),
        }
    }


def _get(identity: str, summary: str, statuses: list[int]) -> Schema:
    answer = {"description": summary, "content": {"application/json": {"schema": {"type": "object"}}}}
    return {"operationId": identity, "summary": summary, "responses": {str(status): answer for status in statuses}}


def _errors(statuses: dict[int, str]) -> Schema:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {str(status): {"description": text, "content": content} for status, text in statuses.items()}
