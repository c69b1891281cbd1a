"""Channels and servers: one place for options, limits, addresses and the rule "loopback or credentials"."""

from __future__ import annotations

import ipaddress
from concurrent import futures
from dataclasses import dataclass

import grpc

from crossfarm.errors import PermissionDenied, UsageError

#: Largest single gRPC message either way. Tensors and artifacts travel as chunks well below it.
MAX_MESSAGE_BYTES = 16 << 20

_LIMITS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # errors travel as trailers: with gRPC's default of 8 KiB a long message would be lost, and its reason with it
    ("grpc.max_metadata_size", 64 << 10),
    ("grpc.absolute_max_metadata_size", 128 << 10),
]

#: A dead peer is found within about 15 s even on an idle connection; processes behind NAT stay mapped.
_KEEPALIVE = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]

CHANNEL_OPTIONS: list[tuple[str, int]] = [
    *_LIMITS,
    *_KEEPALIVE,
    # Subchannels must not be shared between channels: a client that reconnects wants a connection of its own.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    # in spite of its name the time an attempt may take until the peer answers: slow boards and links need seconds
    ("grpc.min_reconnect_backoff_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_http_proxy", 0),
]

SERVER_OPTIONS: list[tuple[str, int]] = [
    *_LIMITS,
    *_KEEPALIVE,
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.so_reuseport", 0),  # two servers must not silently share a port
]


@dataclass(frozen=True)
class Security:
    """What a client or server brings besides an address.

    Attributes:
        root_certificates: PEM of the authorities trusted, or None for plaintext.
        certificate_chain, private_key: PEM of this side, for a server or for mutual TLS.
        insecure: plaintext beyond loopback was asked for explicitly.
    """

    root_certificates: bytes | None = None
    certificate_chain: bytes | None = None
    private_key: bytes | None = None
    insecure: bool = False

    @property
    def tls(self) -> bool:
        return self.root_certificates is not None or self.private_key is not None


PLAINTEXT = Security()


def split_address(address: str) -> tuple[str, int]:
    """``"host:port"`` or ``"[v6]:port"`` → (host, port). Raises UsageError."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"address {address!r} is not host:port", hint="write it as 127.0.0.1:7461 or [::1]:7461")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_loopback(address: str) -> bool:
    """True for an address that only this machine can reach; a name other than localhost counts as not."""
    host = split_address(address)[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refuse_plaintext(address: str, security: Security, verb: str) -> None:
    if not (security.tls or security.insecure or is_loopback(address)):
        raise PermissionDenied(
            f"refusing to {verb} {address} in plaintext: it is not a loopback address",
            hint="give TLS credentials, or say that the network is trusted: --insecure to a service, "
            "CROSSFARM_INSECURE=1 to a client",
        )


def open_channel(
    address: str, security: Security = PLAINTEXT, extra_options: list[tuple[str, int]] | None = None
) -> grpc.Channel:
    """A channel to ``address`` (connects lazily). Raises PermissionDenied for plaintext beyond loopback."""
    _refuse_plaintext(address, security, "call")
    options = [*CHANNEL_OPTIONS, *(extra_options or [])]
    if not security.tls:
        return grpc.insecure_channel(address, options=options)
    credentials = grpc.ssl_channel_credentials(
        security.root_certificates, security.private_key, security.certificate_chain
    )
    return grpc.secure_channel(address, credentials, options=options)


def new_server(*, threads: int, name: str, extra_options: list[tuple[str, int]] | None = None) -> grpc.Server:
    """A gRPC server with our options and ``threads`` handler threads; each open stream holds one."""
    return grpc.server(
        futures.ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name),
        options=[*SERVER_OPTIONS, *(extra_options or [])],
    )


def listen(server: grpc.Server | grpc.aio.Server, address: str, security: Security = PLAINTEXT) -> str:
    """Binds ``server`` to ``address`` (port 0 picks one) and returns the address it got.

    Raises PermissionDenied for plaintext beyond loopback, UsageError when the port cannot be had.
    """
    _refuse_plaintext(address, security, "listen on")
    try:
        if security.private_key is not None and security.certificate_chain is not None:
            credentials = grpc.ssl_server_credentials(
                [(security.private_key, security.certificate_chain)],
                root_certificates=security.root_certificates,
                require_client_auth=security.root_certificates is not None,
            )
            port = server.add_secure_port(address, credentials)
        else:
            port = server.add_insecure_port(address)
    except RuntimeError as failure:
        raise UsageError(f"cannot listen on {address}: {failure}", hint="is another program on that port?") from failure
    host = address.rpartition(":")[0]
    return f"{host}:{port}"
