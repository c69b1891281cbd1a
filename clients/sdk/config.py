"""Which farm a client talks to, and with what credentials.

Settings are looked up in this order, the first that says something wins (flag, environment, running farm, file):

1. the argument: ``connect("lab:7461")``, ``--tracker lab:7461``; the word ``embedded`` asks for a private farm;
2. the environment: ``CROSSFARM_TRACKER``, and for the credentials ``CROSSFARM_CA``, ``CROSSFARM_CERTIFICATE``,
   ``CROSSFARM_KEY`` (paths of PEM files) and ``CROSSFARM_INSECURE=1``;
3. the farm that ``crossfarm up`` keeps running on this machine for this user;
4. the configuration file (``clients.sdk.places.config_file``)::

       tracker = "lab.example:7461"
       ca = "/etc/crossfarm/ca.pem"        # relative paths are relative to the file
       certificate = "me.pem"
       key = "me.key"
       insecure = false

5. nothing: a private farm on loopback, see ``clients.sdk.embedded``.

Each credential is looked up by itself in argument, environment, file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from clients.sdk import places, runfile
from crossfarm.errors import UsageError
from crossfarm.wire.channels import PLAINTEXT, Security, split_address

#: The address that stands for "a private farm of my own".
EMBEDDED = "embedded"

_FALSE = frozenset({"", "0", "false", "no", "off"})


@dataclass(frozen=True)
class Settings:
    """What ``resolve`` found.

    Attributes:
        tracker: host:port, or ``EMBEDDED``.
        source: who said so, for messages: "argument", "CROSSFARM_TRACKER", "crossfarm up", a path, or "default".
        compiler: the compiler service's address where it is known without asking the tracker, else "".
        security: the credentials to use with every service of that farm.
    """

    tracker: str
    source: str
    compiler: str = ""
    security: Security = PLAINTEXT


@dataclass(frozen=True)
class ConfigFile:
    """The configuration file as read; an absent file is one that says nothing."""

    tracker: str = ""
    ca: str = ""
    certificate: str = ""
    key: str = ""
    insecure: bool = False

    @staticmethod
    def read(path: Path) -> ConfigFile:
        """Reads ``path``. Raises UsageError for a file that is no TOML, an unknown key or a value of a wrong type."""
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ConfigFile()
        except (OSError, UnicodeDecodeError) as failure:
            raise UsageError(f"cannot read the configuration file {path}: {failure}") from failure
        return _from_toml(text, path)


def resolve(
    address: str | None = None,
    security: Security | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    path: Path | None = None,
) -> Settings:
    """The settings by the precedence above.

    Args:
        address: what the caller gave, if anything.
        security: credentials the caller gave; they replace all others.
        environ, path: the environment and the configuration file, by default the process's own.
    Raises:
        UsageError: for an address that is not host:port, or a configuration file that cannot be used.
    """
    environ = os.environ if environ is None else environ
    path = path or places.config_file()
    file = ConfigFile.read(path)
    credentials = security if security is not None else _credentials(environ, file, path)
    for said, source in ((address, "the argument"), (environ.get("CROSSFARM_TRACKER"), "CROSSFARM_TRACKER")):
        if said:
            return Settings(_checked(said, source), source, security=credentials)
    running = runfile.read()
    if running is not None:
        if running.insecure and security is None:
            credentials = replace(credentials, insecure=True)
        return Settings(running.tracker, "crossfarm up", compiler=running.compiler, security=credentials)
    if file.tracker:
        return Settings(_checked(file.tracker, str(path)), str(path), security=credentials)
    return Settings(EMBEDDED, "default", security=credentials)


def _checked(address: str, source: str) -> str:
    if address != EMBEDDED:
        try:
            split_address(address)
        except UsageError as error:
            raise UsageError(f"{error.message} (from {source})", hint=error.hint) from None
    return address


def _credentials(environ: Mapping[str, str], file: ConfigFile, path: Path) -> Security:
    def pem(variable: str, configured: str) -> bytes | None:
        named = environ.get(variable)
        where = Path(named) if named else path.parent / configured if configured else None
        if where is None:
            return None
        try:
            return where.read_bytes()
        except OSError as failure:
            source = variable if named else str(path)
            raise UsageError(f"cannot read the credential {where} (from {source}): {failure}") from failure

    insecure = environ.get("CROSSFARM_INSECURE")
    return Security(
        root_certificates=pem("CROSSFARM_CA", file.ca),
        certificate_chain=pem("CROSSFARM_CERTIFICATE", file.certificate),
        private_key=pem("CROSSFARM_KEY", file.key),
        insecure=file.insecure if insecure is None else insecure.lower() not in _FALSE,
    )


def _from_toml(text: str, path: Path) -> ConfigFile:
    try:
        import tomllib
    except ImportError:  # Python 3.10
        raise UsageError(
            f"reading the configuration file {path} needs Python 3.11",
            hint="set CROSSFARM_TRACKER instead",
        ) from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as failure:
        raise UsageError(f"the configuration file {path} is not TOML: {failure}") from failure
    known = {f.name: type(f.default) for f in fields(ConfigFile)}
    for key, value in values.items():
        if key not in known:
            raise UsageError(
                f"the configuration file {path} has an unknown key {key!r}", hint=f"known keys: {', '.join(known)}"
            )
        if type(value) is not known[key]:
            raise UsageError(f"{key!r} in the configuration file {path} must be a {known[key].__name__}, not {value!r}")
    return ConfigFile(**values)
