"""`python -m deploy.compose.env`: write .env with fresh secrets; with --example, .env.example off the settings classes.

Which variable of .env a process's setting comes from is said here (`COMPOSE`) and done in docker-compose.yml; a test
holds the two, the settings classes and .env.example together.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import ipaddress
import os
import secrets
import shutil
import sys
import textwrap
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from services.ai_worker.settings import Settings as AiWorkerSettings
from services.api.settings import Settings as ApiSettings
from services.ingest.settings import IngestSettings, RecorderSettings
from services.sender.seal import new_key_pair
from services.sender.settings import DispatcherSettings, SenderSettings
from shared.settings.groups import ProcessSettings

ROOT = Path(__file__).resolve().parents[2]
NGINX = ROOT / "deploy" / "nginx"
STORAGE_DIR = "/var/lib/parley/media"  # where docker-compose.yml mounts the volume
NGINX_UID = 101  # of the nginx image; its private key must be readable to it

PROCESSES: Mapping[str, type[ProcessSettings]] = {
    "ingest": IngestSettings,
    "recorder": RecorderSettings,
    "ai_worker": AiWorkerSettings,
    "api": ApiSettings,
    "sender": SenderSettings,
    "dispatcher": DispatcherSettings,
}

# A process's setting → the variable of .env that compose takes it from, where the names differ. None: set in
# docker-compose.yml itself. A pair holds for one process.
COMPOSE: Mapping[str | tuple[str, str], str | None] = {
    ("DATABASE_URL", "ingest"): "INGEST_DATABASE_URL",
    ("DATABASE_URL", "recorder"): "SERVICE_DATABASE_URL",
    ("DATABASE_URL", "ai_worker"): "SERVICE_DATABASE_URL",
    ("DATABASE_URL", "api"): "API_DATABASE_URL",
    ("DATABASE_URL", "sender"): "SENDER_DATABASE_URL",
    ("DATABASE_URL", "dispatcher"): "SERVICE_DATABASE_URL",
    ("HTTP_REQUIRE_HTTPS", "ingest"): "INGEST_REQUIRE_HTTPS",
    ("HTTP_REQUIRE_HTTPS", "api"): None,
    ("HTTP_REQUIRE_HTTPS", "sender"): None,
    "HTTP_HOST": None,
    "HTTP_PORT": None,
    "HTTP_INTERNAL_HOST": None,
    "HTTP_INTERNAL_PORT": None,
    "HTTP_TRUSTED_PROXIES": "NGINX_ADDRESS",
    ("REDIS_URL", "sender"): None,
    ("SLOTS", "dispatcher"): "DISPATCHER_SLOTS",
    "REDIS_URL": "REDIS_PASSWORD",
    "CACHE_REDIS_URL": "REDIS_PASSWORD",
}

# For settings without a default whose description gives no "e.g.".
EXAMPLES: Mapping[str, str] = {
    "ANTHROPIC_API_KEY": "sk-ant-api03-…",
    "WHATSAPP_APP_SECRETS": "0123456789abcdef0123456789abcdef",
    "WHATSAPP_VERIFY_TOKEN": "any-long-random-word",
    "WHATSAPP_TOKEN_KEYS": "2Wl0…=",
    "WHATSAPP_TOKEN_PUBLIC_KEY": "f8Qk…=",
    "SUPABASE_ANON_KEY": "sb_publishable_…",
    "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_…",
    "SUPABASE_INGEST_TOKEN": "eyJhbGciOi…",
    "STORAGE_DIR": STORAGE_DIR,
    "STORAGE_SERVICE_KEY": "sb_secret_…",
    "STORAGE_URL_SECRET": "b31c…",
    "SUPABASE_JWT_SECRET": "the-project's-legacy-jwt-secret",
    "HTTP_TRUSTED_PROXIES": "10.0.0.0/8",
}

UNITS = {"_s": "seconds", "_ms": "milliseconds", "_bytes": "bytes", "_usd": "US dollars"}


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of .env that no settings class knows: docker-compose.yml uses it alone."""

    name: str
    meaning: str
    default: str | None = None
    example: str | None = None
    is_secret: bool = False


COMPOSE_ONLY = (
    Variable(
        "COMPOSE_PROFILES",
        "local: PostgreSQL and the sandbox come along. Empty: the addresses below name the real thing",
        default="",
        example="local",
    ),
    Variable("PARLEY_IMAGE", "Name and tag of the image", default="parley:local"),
    Variable("PIP_CONF", "A pip.conf to build with (a build secret)", default="./deploy/compose/pip.conf"),
    Variable("PUBLISH_HTTPS", "Address and port where nginx takes HTTPS", default="127.0.0.1:8443", example="443"),
    Variable("PUBLISH_HTTP", "The same for plain HTTP: certificate challenges, redirects", default="127.0.0.1:8080"),
    Variable("TLS_DIR", "Folder with fullchain.pem and privkey.pem, readable to uid 101", default="./deploy/nginx/tls"),
    Variable(
        "NGINX_RELOAD_EVERY_S", "Seconds between reloads of nginx: certificates, deadline of bodies", default="60"
    ),
    Variable("EDGE_SUBNET", "Network between nginx and the processes, if that one is taken", default="172.30.250.0/24"),
    Variable("EDGE_RANGE", "The part of it for all but nginx", default="172.30.250.128/25"),
    Variable("NGINX_ADDRESS", "nginx's own address in it, outside that part", default="172.30.250.2"),
    Variable(
        "MIGRATE_DATABASE_URL",
        "The database as its owner, who may create schemas and roles; only `migrate` holds it",
        example="postgresql://postgres:password@db.abc.supabase.co:5432/postgres",
        is_secret=True,
    ),
    Variable(
        "INGEST_DATABASE_URL",
        "DATABASE_URL of ingest, with a login that may become parley_ingest and nothing else",
        default="",
        example="postgresql://parley_ingest_login:password@db.abc.supabase.co:5432/postgres",
        is_secret=True,
    ),
    Variable(
        "SERVICE_DATABASE_URL",
        "DATABASE_URL of recorder, ai_worker and dispatcher, with a login that may become service_role",
        default="",
        example="postgresql://parley_service_login:password@db.abc.supabase.co:5432/postgres",
        is_secret=True,
    ),
    Variable(
        "API_DATABASE_URL",
        "DATABASE_URL of api, with a login that may become authenticated",
        default="",
        example="postgresql://parley_api_login:password@db.abc.supabase.co:5432/postgres",
        is_secret=True,
    ),
    Variable(
        "SENDER_DATABASE_URL",
        "DATABASE_URL of sender, with a login of its own that may become authenticated",
        default="",
        example="postgresql://parley_sender_login:password@db.abc.supabase.co:5432/postgres",
        is_secret=True,
    ),
    Variable("REDIS_PASSWORD", "Of both Redis servers; letters and digits", example="4f1c…", is_secret=True),
    Variable(
        "INGEST_REQUIRE_HTTPS",
        "HTTP_REQUIRE_HTTPS of ingest; false only for the sandbox, which does not come through nginx",
        default="true",
    ),
    Variable("DISPATCHER_SLOTS", "SLOTS of dispatcher", default="", example="128"),
    Variable("POSTGRES_PASSWORD", "Local profile: the superuser's", example="9a03…", is_secret=True),
    Variable("SANDBOX_APP_SECRET", "Local profile: what the sandbox signs with", example="77d0…", is_secret=True),
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of one process."""

    name: str
    process: str
    field: FieldInfo

    @property
    def is_required(self) -> bool:
        return self.field.is_required()

    @property
    def is_secret(self) -> bool:
        return "SecretStr" in repr(self.field.annotation)

    @property
    def default(self) -> str | None:
        """As one would write it in .env; None when there is none."""
        value = self.field.default
        if self.is_required or value is None:
            return None
        if isinstance(value, tuple):
            return ",".join(map(str, value))
        return str(value).lower() if isinstance(value, bool) else str(value)

    @property
    def variable(self) -> str | None:
        """The variable of .env it comes from; None: compose sets it itself."""
        return COMPOSE.get((self.name, self.process), COMPOSE.get(self.name, self.name))


def settings_of(process: str) -> Iterator[Setting]:
    """Yield what a process takes from its environment, in the order of its class."""
    for name, field in PROCESSES[process].model_fields.items():
        group = _group(field.annotation)
        if group is None:
            yield Setting(name.upper(), process, field)
        else:
            for inner, inner_field in group.model_fields.items():
                yield Setting(f"{name}_{inner}".upper(), process, inner_field)


def _group(annotation: object) -> type[BaseModel] | None:
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    is_group = (
        isinstance(annotation, type) and issubclass(annotation, BaseModel) and not issubclass(annotation, SecretStr)
    )
    return annotation if is_group else None  # type: ignore[return-value]  # just checked


def example_file() -> str:
    """Return .env.example."""
    by_name: dict[str, list[Setting]] = {}
    for process in PROCESSES:
        for setting in settings_of(process):
            by_name.setdefault(setting.name, []).append(setting)
    parts = [_HEAD, _title("What docker-compose.yml itself asks for")]
    parts += [_compose_entry(variable) for variable in COMPOSE_ONLY]
    parts.append(
        _title("What the processes ask for: the same names with and without compose, unless it says otherwise")
    )
    parts += [_setting_entry(settings) for settings in by_name.values()]
    return "\n".join(parts)


_HEAD = """\
# Generated from the settings classes by `make env-example`; do not edit. `make env` writes a .env that works.
#
# Each process takes the variables that name it and no others. A process that lacks one stops at once and lists all that
# are missing or wrong. Empty counts as not set. Secrets never appear in logs or errors; each may also come from a file:
# DATABASE_URL_FILE=/run/secrets/database_url instead of DATABASE_URL (without compose, or through an override file).
"""


def _title(text: str) -> str:
    return f"# ── {text} ──\n"


def _compose_entry(variable: Variable) -> str:
    facts = ["docker compose"]
    facts.append("required" if variable.default is None and "Local profile" not in variable.meaning else "optional")
    if variable.is_secret:
        facts.append("secret")
    if variable.default:
        facts.append(f"default {variable.default}")
    return _entry(variable.name, variable.meaning, facts, variable.example or variable.default or "")


def _setting_entry(settings: list[Setting]) -> str:
    first = settings[0]
    meaning = "; or: ".join(dict.fromkeys(setting.field.description or "" for setting in settings))
    required = [setting.process for setting in settings if setting.is_required]
    facts = [", ".join(setting.process for setting in settings)]
    facts.append(
        "optional"
        if not required
        else "required"
        if len(required) == len(settings)
        else f"required by {', '.join(required)}"
    )
    facts += [unit for suffix, unit in UNITS.items() if first.name.lower().endswith(suffix)]
    if first.is_secret:
        facts.append("secret")
    facts += _defaults(settings)
    variables = dict.fromkeys(setting.variable for setting in settings)
    if list(variables) != [first.name]:
        names = [name for name in variables if name]
        facts.append(f"compose: from {', '.join(names)}" if names else "compose: set by docker-compose.yml")
    return _entry(first.name, meaning, facts, example_of(settings))


def _defaults(settings: list[Setting]) -> list[str]:
    """Return the default; with the processes where it is not the same for all."""
    by_value: dict[str, list[str]] = {}
    for setting in settings:
        if setting.default:
            by_value.setdefault(setting.default, []).append(setting.process)
    if len(by_value) < 2:
        return [f"default {value}" for value in by_value]
    return ["default " + ", ".join(f"{value} ({', '.join(names)})" for value, names in by_value.items())]


def example_of(settings: list[Setting]) -> str:
    """Return an example value: one that is known, else the description's "e.g.", else the default."""
    first = settings[0]
    if first.name in EXAMPLES:
        return EXAMPLES[first.name]
    for setting in settings:
        _, found, rest = (setting.field.description or "").partition("e.g. ")
        if found:
            return rest.split(";")[0].split(" ")[0].rstrip(",")
    return first.default or ""


def _entry(name: str, meaning: str, facts: list[str], example: str) -> str:
    lines = textwrap.wrap(f"{meaning}.", 116) + textwrap.wrap(f"[{' · '.join(facts)}]", 116)
    return "\n".join([*(f"# {line}" for line in lines), f"#{name}={example}", ""])


# ── .env ──


def local_values() -> dict[str, str]:
    """Return the .env of the local profile, with fresh secrets."""
    password = {name: secrets.token_hex(24) for name in ("postgres", "ingest", "service", "api", "sender")}

    def address(login: str, key: str) -> str:
        return f"postgresql://{login}:{password[key]}@postgres:5432/parley"

    sandbox_secret = secrets.token_hex(16)
    return {
        "COMPOSE_PROFILES": "local",
        "POSTGRES_PASSWORD": password["postgres"],
        "MIGRATE_DATABASE_URL": address("postgres", "postgres"),
        "INGEST_DATABASE_URL": address("parley_ingest_login", "ingest"),
        "SERVICE_DATABASE_URL": address("parley_service_login", "service"),
        "API_DATABASE_URL": address("parley_api_login", "api"),
        "SENDER_DATABASE_URL": address("parley_sender_login", "sender"),
        "REDIS_PASSWORD": secrets.token_hex(24),
        "SANDBOX_APP_SECRET": sandbox_secret,
        "WHATSAPP_APP_SECRETS": sandbox_secret,
        "WHATSAPP_VERIFY_TOKEN": secrets.token_hex(16),
        **token_keys(),
        "WHATSAPP_GRAPH_URL": "http://sandbox:8003/graph/v26.0",
        "MEDIA_HOSTS": "http://sandbox:8003",
        "STORAGE_DIR": STORAGE_DIR,
        "STORAGE_URL_SECRET": secrets.token_hex(24),
        "STORAGE_PUBLIC_URL": "https://localhost:8443",
        "INGEST_REQUIRE_HTTPS": "false",
        "ANTHROPIC_API_KEY": "the-sandbox-takes-any-key",
        "ANTHROPIC_BASE_URL": "http://sandbox:8003",
        "SUPABASE_URL": "http://sandbox:8003",
    }


def hosted_values() -> dict[str, str]:
    """Return a .env for a real host: secrets of our own are made, those of others are left to fill in."""
    return {
        "COMPOSE_PROFILES": "",
        "PUBLISH_HTTPS": "443",
        "PUBLISH_HTTP": "80",
        "REDIS_PASSWORD": secrets.token_hex(24),
        "WHATSAPP_VERIFY_TOKEN": secrets.token_hex(16),
        **token_keys(),
        "STORAGE_DIR": STORAGE_DIR,
        "STORAGE_URL_SECRET": secrets.token_hex(24),
        **dict.fromkeys(
            (
                "MIGRATE_DATABASE_URL",
                "INGEST_DATABASE_URL",
                "SERVICE_DATABASE_URL",
                "API_DATABASE_URL",
                "SENDER_DATABASE_URL",
                "SUPABASE_URL",
                "ANTHROPIC_API_KEY",
                "WHATSAPP_APP_SECRETS",
            ),
            "",
        ),
    }


def token_keys() -> dict[str, str]:
    """Return a new pair for the access tokens of numbers: who seals them cannot open them."""
    pair = new_key_pair()
    return {"WHATSAPP_TOKEN_KEYS": pair.private_key, "WHATSAPP_TOKEN_PUBLIC_KEY": pair.public_key}


def write_env(file: Path, values: Mapping[str, str]) -> None:
    """Write a file only its owner can read. Raises: FileExistsError."""
    text = "# Written by `make env`; what each means, and what else there is: .env.example\n"
    text += "".join(f"{name}={value}\n" for name, value in values.items())
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as opened:
        opened.write(text)


def write_certificate(folder: Path) -> bool:
    """Write a self-signed certificate for localhost; False if there is one already, whoever made it."""
    chain, key_file = folder / "fullchain.pem", folder / "privkey.pem"
    if chain.exists() or key_file.exists():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.DNSName("nginx"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    # nginx runs as its own user in the container. We hand the key over if we can; else everybody here may read it,
    # which is as secret as a certificate for localhost needs to be.
    can_give = os.geteuid() == 0
    with os.fdopen(
        os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if can_give else 0o644), "wb"
    ) as opened:
        opened.write(pem)
    if can_give:
        os.chown(key_file, NGINX_UID, NGINX_UID)
    return True


def main() -> int:
    """Run from the command line. Returns: the exit status."""
    parser = argparse.ArgumentParser(prog="make env", description="Write .env, once.")
    parser.add_argument(
        "--hosted", action="store_true", help="for a real host: no stand-ins; you fill in the addresses"
    )
    parser.add_argument("--example", action="store_true", help="write .env.example instead")
    arguments = parser.parse_args()
    if arguments.example:
        (ROOT / ".env.example").write_text(example_file())
        return 0
    values = hosted_values() if arguments.hosted else local_values()
    try:
        write_env(ROOT / ".env", values)
    except FileExistsError:
        sys.stderr.write("There is a .env already, and it is left as it is: move it away to get a new one.\n")
        return 1
    print(".env written, readable to you only.")
    sandbox = NGINX / "enabled" / "sandbox.conf"
    if arguments.hosted:
        with contextlib.suppress(FileNotFoundError):
            sandbox.unlink()
        empty = [name for name, value in values.items() if not value and name != "COMPOSE_PROFILES"]
        print(f"Fill in: {', '.join(empty)}.\nThen a certificate: docs/runbooks/compose.md.")
        return 0
    shutil.copy(NGINX / "optional" / "sandbox.conf", sandbox)
    if write_certificate(NGINX / "tls"):
        print("deploy/nginx/tls: a self-signed certificate for localhost.")
    print("Next: docker compose up -d --build --wait")
    return 0


if __name__ == "__main__":
    sys.exit(main())
