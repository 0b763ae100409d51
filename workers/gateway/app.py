"""The gateway's ASGI application and its routes."""

from fastapi import FastAPI

from workers.gateway import health, jobs, metrics, problems, status

ROUTERS = (health.router, metrics.router, status.router, jobs.router)


def make_app() -> FastAPI:
    """Return the application for the environment. Raise ConfigurationError naming a bad variable."""
    app = FastAPI(
        title="Chat workers",
        version="1",
        docs_url=None,
        redoc_url=None,
        # A redirect would come before the token is asked for, and lead to whatever the Host header names.
        redirect_slashes=False,
        exception_handlers=problems.HANDLERS,
    )
    for router in ROUTERS:
        app.include_router(router)
    return app
