"""Ports, connections and certificates: how requests come in, before anything knows what they ask."""

import array
import asyncio
import contextlib
import errno
import fcntl
import resource
import socket
import ssl
import sys
import tempfile
import termios

import grpc
import h11
import orjson
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from preprocessing.errors import InputError

HEAD_SECONDS = 10.0  # until a request's head has come
SEND_SECONDS = 30.0  # in which a client must have taken something of its answer
OPEN_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
MAX_CONNECTIONS = (OPEN_FILES if OPEN_FILES > 0 else 1 << 20) // 2  # over REST; the rest is for all else


class _Protocol(H11Protocol):
    """Closes a connection on which no whole request head comes, one whose client does not take its answer, and those
    beyond the bound: uvicorn waits for ever, and at the limit of open files nobody else could connect."""

    _head_timer: asyncio.TimerHandle | None = None
    _send_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport):
        super().connection_made(transport)
        transport.set_write_buffer_limits(1)  # writing pauses as soon as the client is behind (0: for ever, over TLS)
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()

    def data_received(self, data):
        super().data_received(data)
        if self._head_timer is None and self.conn.trailing_data[0] and self.conn.their_state is h11.IDLE:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)
        elif self._head_timer is not None and self.conn.their_state is not h11.IDLE:
            self._stop_timer()

    def connection_lost(self, exc):
        self._stop_timer()
        self._stop_send_timer()
        super().connection_lost(exc)

    def pause_writing(self):
        super().pause_writing()
        self._await_progress()

    def resume_writing(self):
        self._stop_send_timer()
        super().resume_writing()

    def _await_progress(self):
        self._send_timer = self.loop.call_later(SEND_SECONDS, self._send_is_late, self._untaken())

    def _untaken(self):
        """Bytes that the client has not acknowledged: ours, and the system's, which may be megabytes."""
        theirs = array.array("i", [0])
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, theirs)
        return self.transport.get_write_buffer_size() + theirs[0]

    def _send_is_late(self, left):
        if self._untaken() < left:
            self._await_progress()
        else:
            self.transport.abort()  # `close` would wait for what is left to be taken

    def _head_is_late(self):
        self._head_timer = None
        if self.conn.their_state is h11.IDLE:
            self.transport.close()

    def send_400_response(self, msg):
        """As JSON, like all other errors. What is wrong is in the exception that uvicorn is handling."""
        error = sys.exc_info()[1]
        status = getattr(error, "error_status_hint", 400)
        if self.cycle is not None:
            self.cycle.disconnected = True  # whoever still answers what came before says nothing more
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            body = orjson.dumps({"error": f"{msg.removesuffix('.')}: {error}" if error else msg})
            headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
            response = h11.Response(status_code=status, headers=[*headers, ("connection", "close")])
            for event in (response, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event))
        self.transport.close()

    def _stop_timer(self):
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_send_timer(self):
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None


class RestServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):  # `serve` has its own
        yield


def rest_config(app, settings) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http=_Protocol,  # h11: httptools loses the body of a request that offers an upgrade, and bounds no head
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
        h11_max_incomplete_event_size=64 * 1024,
    )
    config.load()
    if settings.tls:
        config.ssl = ssl_context(settings.tls)
    return config


def grpc_credentials(tls) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(tls.server_key.encode(), tls.server_cert.encode())],
        root_certificates=tls.custom_ca.encode() or None,
        require_client_auth=tls.client_verify,
    )


def ssl_context(tls) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # ssl reads keys from files only.
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(tls.server_key.strip() + "\n" + tls.server_cert)
        file.flush()
        try:
            context.load_cert_chain(file.name)
        except ssl.SSLError as error:
            raise InputError(f"server_key and server_cert must be PEM texts that belong together ({error})") from None
    if tls.custom_ca:
        context.load_verify_locations(cadata=tls.custom_ca)
    if tls.client_verify:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def bind(host, port) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with contextlib.ExitStack() as on_error:
            bound = on_error.enter_context(socket.socket(family, kind, protocol))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            on_error.pop_all()
    except OSError as error:
        raise InputError(taken(host, port, error.strerror, error.errno)) from None
    return bound


def grpc_server(settings) -> tuple[grpc.aio.Server, int | None]:
    """A server that listens, and its port, if it has one."""
    if settings.port > 0:
        # gRPC's own message does not say why.
        bind(settings.host, settings.port).close()
    limit = settings.limits
    server = grpc.aio.server(
        options=[
            ("grpc.so_reuseport", 0),  # else two servers would share a port without a word
            ("grpc.max_receive_message_length", limit.message_bytes),
            ("grpc.max_send_message_length", -1),  # answers are bounded by Limits.answer_bytes
            *settings.grpc_channel_arguments,
        ]
    )

    def listen(address):
        if settings.tls:
            return server.add_secure_port(address, grpc_credentials(settings.tls))
        return server.add_insecure_port(address)

    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    port = None
    try:
        if settings.port >= 0:
            port = listen(f"{host}:{settings.port}")
    except RuntimeError as error:
        raise InputError(taken(settings.host, settings.port, str(error), errno.EADDRINUSE)) from None
    try:
        if settings.grpc_socket_path:
            listen(f"unix:{settings.grpc_socket_path}")
    except RuntimeError as error:
        raise InputError(f"cannot listen on grpc_socket_path {settings.grpc_socket_path!r} ({error})") from None
    return server, port


def taken(host, port, reason, number):
    way_out = (
        "; another server may be running: choose another port, or 0 for a free one"
        if number == errno.EADDRINUSE
        else ""
    )
    return f"cannot listen on {host}:{port} ({reason}){way_out}"
