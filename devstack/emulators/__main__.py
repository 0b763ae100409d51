"""Start the emulator: `python -m devstack.emulators --folder FOLDER --port PORT`, until SIGTERM or SIGINT."""

import argparse
import asyncio
import os
import signal
import socket
from pathlib import Path
from typing import Any

import uvloop
from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP2Settings
from granian.log import LogLevels
from granian.server.embed import Server as HttpServer

from devstack.emulators import apns, fcm, oauth, subscriptions
from devstack.emulators.answers import Provider
from devstack.emulators.apns import Apns
from devstack.emulators.certificates import ensure_certificates
from devstack.emulators.connections import STREAMS_PER_CONNECTION
from devstack.emulators.control import Control
from devstack.emulators.counters import Counters
from devstack.emulators.fcm import Fcm
from devstack.emulators.log import AcceptedLog
from devstack.emulators.oauth import OAuth
from devstack.emulators.server import Server
from devstack.emulators.webpush import WebPush

_ADDRESS = "127.0.0.1"
STOP_SECONDS = 1.0


async def serve(folder: Path, port: int) -> None:
    """Given the folder for keys and the log, serve on 127.0.0.1:port until a signal."""
    tokens = OAuth(folder, f"https://127.0.0.1:{port}{oauth.TOKEN_PATH}")
    routes: dict[str, Provider] = {
        fcm.PATH_PREFIX: Fcm(tokens),
        apns.PATH_PREFIX: Apns(folder),
        subscriptions.PATH_PREFIX: WebPush(folder),
        oauth.TOKEN_PATH: tokens,
    }
    log, counters = AcceptedLog(folder), Counters()
    application = Server(routes, Control(tokens, list(routes.values()), log, counters), log, counters)
    http = _http_server(application, port, *ensure_certificates(folder))
    serving = asyncio.create_task(http.serve())
    flushing = asyncio.create_task(application.keep_flushing())
    stopping = asyncio.create_task(_signalled())
    ended, _ = await asyncio.wait([serving, flushing, stopping], return_when=asyncio.FIRST_COMPLETED)
    flushing.cancel()
    application.hurry()
    http.stop()
    await asyncio.wait([serving], timeout=STOP_SECONDS)
    # Last, since requests that were under way may have been accepted until now.
    log.flush()
    if not serving.done():
        os._exit(0)  # granian would wait for connections that clients keep and do not read
    await asyncio.gather(*ended)


def _http_server(application: Server, port: int, certificate: Path, key: Path) -> Any:
    return HttpServer(
        application,
        address=_ADDRESS,
        port=port,
        interface=Interfaces.RSGI,
        http=HTTPModes.auto,
        http2_settings=HTTP2Settings(max_concurrent_streams=STREAMS_PER_CONNECTION),
        websockets=False,
        backlog=1024,
        log_level=LogLevels.error,
        ssl_cert=certificate,
        ssl_key=key,
        ssl_protocol_min=SSLProtocols.tls12,
    )


def _taken(port: int) -> bool:
    # The HTTP server sets SO_REUSEPORT: a second emulator would silently take half of the first one's connections.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_ADDRESS, port))
        except OSError:
            return True
    return False


async def _signalled() -> None:
    loop, arrived = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, arrived.set)
    await arrived.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m devstack.emulators", description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="for keys, certificates and the log of messages")
    parser.add_argument("--port", type=int, required=True, help="loopback port")
    arguments = parser.parse_args()
    if _taken(arguments.port):
        parser.error(f"port {arguments.port} of {_ADDRESS} is taken")
    # Its keys are for the owner alone.
    os.umask(0o077)
    arguments.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    uvloop.run(serve(arguments.folder, arguments.port))


if __name__ == "__main__":
    main()
