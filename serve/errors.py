"""Errors in OpenAI's own form: a status and ``{"error": {message, type, param, code}}``."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class Refused(Exception):
    """A request that is not served, and the answer that it gets."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = headers or {}

    def response(self) -> JSONResponse:
        """The answer."""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        error: dict[str, Any] = {
            "message": self.message,
            "type": kind,
            "param": self.param,
            "code": self.code,
        }
        return JSONResponse({"error": error}, self.status, headers=self.headers)


async def refused(request: Request, error: Exception) -> Response:
    """Starlette's handler of ``Refused``."""
    assert isinstance(error, Refused)  # noqa: S101 (for the type checker)
    return error.response()


async def not_here(request: Request, error: Exception) -> Response:
    """Starlette's handler of its own HTTPException: a path or method that is not served."""
    status = getattr(error, "status_code", 404)
    return Refused(status, f"{request.method} {request.url.path} is not served here").response()


async def failed(request: Request, error: Exception) -> Response:
    """Starlette's handler of all else."""
    return Refused(500, "the endpoint failed; its log says how").response()
