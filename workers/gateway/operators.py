"""Admission to the operators' routes: everyone on this machine, or whoever holds the operators' token."""

import ipaddress
import os
import re
from functools import cache
from hmac import compare_digest
from pathlib import Path

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPBearer

from settings import ConfigurationError, get_settings
from workers.gateway import tokens
from workers.gateway.admission import presented, refuse
from workers.gateway.catalogue import EVENTS
from workers.limits import Buckets

SHORTEST_TOKEN = 16
LARGEST_FILE_BYTES = 4096
PORT = re.compile(r":[0-9]*$")
CHALLENGE = 'Basic realm="chat-workers operators", charset="UTF-8"'


def is_loopback(address: str) -> bool:
    """Return whether only this machine reaches what listens on an address; a name that is no address counts as open."""
    try:
        return ipaddress.ip_address(address.strip("[]")).is_loopback
    except ValueError:
        return address == "localhost"


def read_token(path: Path) -> str:
    """Return the token of GATEWAY_OPERATIONS_TOKEN_FILE. Raise ConfigurationError with a sentence."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o007:
                raise ConfigurationError(f"GATEWAY_OPERATIONS_TOKEN_FILE {path} is open to everyone: chmod o= {path}")
            token = file.read(LARGEST_FILE_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"GATEWAY_OPERATIONS_TOKEN_FILE cannot be read: {error}") from None
    if len(token) < SHORTEST_TOKEN:
        raise ConfigurationError(f"GATEWAY_OPERATIONS_TOKEN_FILE holds fewer than {SHORTEST_TOKEN} characters")
    return token


@cache
def _refusals(per_minute: int) -> Buckets:
    return Buckets(per_minute)


async def admit(request: Request) -> None:
    """Let a request pass that bears the token, as Bearer (Prometheus) or as the password of any user (a browser).

    Without GATEWAY_OPERATIONS_TOKEN_FILE a gateway that listens on loopback is open to requests for this machine by name, and
    one that others reach is shut. The file is read at each request: a new token holds at once.
    """
    settings = get_settings()
    if settings.gateway_operations_token_file is None:
        if is_loopback(settings.gateway_address):
            if is_loopback(PORT.sub("", request.headers.get("host", ""))):
                return
            # A page of any site may have its own name point at 127.0.0.1 and read the answer in an operator's browser.
            raise HTTPException(403, "open to localhost alone: set GATEWAY_OPERATIONS_TOKEN_FILE to open it to other names")
        raise HTTPException(
            403, "shut, for GATEWAY_ADDRESS is reached by others: set GATEWAY_OPERATIONS_TOKEN_FILE to open it with a token"
        )
    try:
        token = read_token(settings.gateway_operations_token_file)
    except ConfigurationError as error:
        raise HTTPException(503, str(error)) from None
    if not compare_digest(presented(request).encode(), token.encode()):
        refuse(request, _refusals(settings.gateway_refusals_per_minute), "the operators' token is needed", CHALLENGE)


async def admit_reader(request: Request) -> None:
    """Let pass what bears an API's token that is for everything or for events, or is let pass as an operator's."""
    if not presented(request).startswith(tokens.PREFIX):
        await admit(request)
    elif (jobs := request.state.route.admission.admit(request).jobs) is not None and EVENTS not in jobs:
        raise HTTPException(403, "This token may not read events; an operator makes one that may.")


# For the OpenAPI document alone.
_bearer = HTTPBearer(auto_error=False, scheme_name="operator", description="The token of GATEWAY_OPERATIONS_TOKEN_FILE.")
Operators = (Depends(admit), Depends(_bearer))
Readers = (Depends(admit_reader), Depends(_bearer))
