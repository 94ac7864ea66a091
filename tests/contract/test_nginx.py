"""What deploy/nginx promises, read off its configuration; `make compose-smoke` tries it with a real nginx."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType

import pytest

from services.api import routes as api_routes
from services.api.routes import bulk_sends
from services.ingest.settings import WebhookSettings
from services.sender import routes as sender_routes
from shared.whatsapp.outbound.media import check_file

FOLDER = Path(__file__).parents[2] / "deploy" / "nginx"


@dataclass
class Directive:
    """`name arguments;` or `name arguments { block }`."""

    name: str
    arguments: list[str]
    block: list[Directive] = field(default_factory=list)

    def all(self, name: str, *arguments: str) -> list[Directive]:
        return [one for one in self.block if one.name == name and one.arguments[: len(arguments)] == list(arguments)]

    def one(self, name: str, *arguments: str) -> Directive:
        (found,) = self.all(name, *arguments)
        return found

    def value(self, name: str) -> str:
        return " ".join(self.one(name).arguments)

    def walk(self) -> Iterator[Directive]:
        for one in self.block:
            yield one
            yield from one.walk()


_TOKEN = re.compile(r"""\s+|\#[^\n]*|(?P<token>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[{};]|[^\s{};"']+)""")


def parse(text: str) -> list[Directive]:
    stack: list[list[Directive]] = [[]]
    words: list[str] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        assert found is not None, text[at : at + 40]
        at = found.end()
        token = found["token"]
        if token is None:
            continue
        if token == ";":
            stack[-1].append(Directive(words[0], words[1:]))
            words = []
        elif token == "{":
            directive = Directive(words[0], words[1:])
            stack[-1].append(directive)
            stack.append(directive.block)
            words = []
        elif token == "}":
            assert not words, f"no semicolon after {words}"
            stack.pop()
        else:
            words.append(token)
    assert len(stack) == 1, "a brace is missing"
    assert not words, f"no semicolon after {words}"
    return stack[0]


def load(name: str) -> list[Directive]:
    """Parse a file with its includes in place."""
    return [inner for outer in parse((FOLDER / name).read_text()) for inner in _including(outer)]


def _including(directive: Directive) -> list[Directive]:
    if directive.name == "include" and "*" not in directive.arguments[0]:
        return load(directive.arguments[0])
    directive.block = [inner for one in directive.block for inner in _including(one)]
    return [directive]


MAIN = Directive("main", [], load("nginx.conf"))
HTTP = MAIN.one("http")
PLAIN, TLS, HEALTH = HTTP.all("server")
WEBHOOK = TLS.one("location", "=", "/api/webhooks/whatsapp")
API = TLS.one("location", "/api/")
BULK = TLS.one("location", "=", "/api/whatsapp/bulk-sends")
MEDIA = TLS.one("location", "~", "^/api/whatsapp/(media|files)(/|$)")
SAYING = next(one for one in TLS.all("location", "~") if "send" in one.arguments[1])


def seconds(value: str) -> int:
    return int(re.fullmatch(r"(\d+)s", value)[1])  # type: ignore[index]


def size(value: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([km])", value).groups()  # type: ignore[union-attr]
    return int(number) * {"k": 1024, "m": 1024**2}[unit]


def test_slow_clients_are_cut() -> None:
    assert seconds(HTTP.value("client_header_timeout")) <= 10
    assert seconds(HTTP.value("client_body_timeout")) <= 10
    assert seconds(HTTP.value("send_timeout")) <= 10
    # The deadline of a whole body is the age of a worker: compose reloads, the old one is ended after this long.
    assert seconds(MAIN.value("worker_shutdown_timeout")) <= 120


def test_an_agent_s_largest_file_is_not_cut_by_a_reload() -> None:
    # It was 20 s: a video of 16 MB at 5 Mbit/s, begun just before a reload, broke off.
    megabits = size(MEDIA.value("client_max_body_size")) * 8 / 1e6

    assert megabits / seconds(MAIN.value("worker_shutdown_timeout")) < 8


def test_workers_are_given_time_for_a_whole_answer() -> None:
    longest = max(seconds(one.arguments[0]) for one in HTTP.walk() if one.name == "proxy_read_timeout")

    assert seconds(WEBHOOK.value("proxy_read_timeout")) <= seconds(MAIN.value("worker_shutdown_timeout"))
    assert longest <= 30


def test_bodies_are_4_mb_for_webhooks_8_mb_for_lists_100_mb_for_files_and_1_mb_elsewhere() -> None:
    assert size(WEBHOOK.value("client_max_body_size")) == WebhookSettings.model_fields["max_body_bytes"].default
    assert check_file("document", mime_type="application/pdf", size_bytes=size(MEDIA.value("client_max_body_size")))
    assert size(BULK.value("client_max_body_size")) == bulk_sends.MOST_BODY_BYTES
    assert size(HTTP.value("client_max_body_size")) == 1024**2
    assert [one for one in HTTP.walk() if one.name == "client_max_body_size"] == [
        HTTP.one("client_max_body_size"),
        WEBHOOK.one("client_max_body_size"),
        BULK.one("client_max_body_size"),
        MEDIA.one("client_max_body_size"),
    ]


def test_requests_are_taken_whole_before_a_process_sees_them_but_files() -> None:
    assert HTTP.value("proxy_request_buffering") == "on"
    assert [one for one in TLS.walk() if one.name == "proxy_request_buffering"] == MEDIA.all("proxy_request_buffering")
    assert MEDIA.value("proxy_request_buffering") == "off", "two files of 100 MB fill nginx's /tmp"


def test_connections_are_limited_by_address_and_in_all() -> None:
    zones = {re.search(r"zone=(\w+)", " ".join(one.arguments))[1] for one in HTTP.all("limit_conn_zone")}  # type: ignore[index]

    assert {one.arguments[0] for one in TLS.all("limit_conn")} == zones == {"by_address", "by_server"}
    assert PLAIN.all("limit_conn", "by_address")


def test_routes_are_those_of_the_data_model() -> None:
    assert WEBHOOK.one("set").arguments == ["$ingest", "http://ingest:8000"]
    assert WEBHOOK.value("proxy_pass") == "$ingest"
    for location in (API, BULK):
        assert location.one("set").arguments == ["$api", "http://api:8000"]
        assert location.value("proxy_pass") == "$api"
    for location in (SAYING, MEDIA):
        assert location.one("set").arguments == ["$sender", "http://sender:8000"]
        assert location.value("proxy_pass") == "$sender"
    named = [one for one in TLS.all("location") if not one.arguments[0].startswith("@")]
    assert {" ".join(one.arguments) for one in named if one not in (SAYING, MEDIA)} == {
        "= /api/webhooks/whatsapp",
        "= /api/whatsapp/bulk-sends",
        "/api/",
        "/",
    }
    assert TLS.one("location", "/").value("return") == "404"


def _routes(package: ModuleType) -> set[str]:
    modules = [import_module(f"{package.__name__}.{found.name}") for found in iter_modules(package.__path__)]
    return {re.sub(r"\{\w+\}", "019aa8c1", route.path) for module in modules for route in module.router.routes}


def test_each_route_leads_to_the_process_that_has_it() -> None:
    patterns = [location.arguments[1] for location in (SAYING, MEDIA)]

    def is_the_sender_s(path: str) -> bool:
        return any(re.search(pattern, path) for pattern in patterns)

    at_sender, at_api = _routes(sender_routes) | {"/api/sender/docs", "/api/sender/openapi.json"}, _routes(api_routes)
    assert [path for path in sorted(at_sender) if not is_the_sender_s(path)] == []
    assert [path for path in sorted(at_api) if is_the_sender_s(path)] == []
    assert len(at_api) > 10


def test_metrics_and_probes_cannot_be_reached() -> None:
    targets = {one.arguments[1] for one in HTTP.walk() if one.name == "set" and one.arguments[1].startswith("http")}

    assert targets == {"http://ingest:8000", "http://api:8000", "http://sender:8000"}, "9000 is the internal port"
    assert HEALTH.value("listen").startswith("127.0.0.1:")


def test_upstreams_are_resolved_again_when_services_scale() -> None:
    assert HTTP.one("resolver").arguments[:2] == ["127.0.0.11", "valid=2s"]
    for one in HTTP.walk():
        if one.name == "proxy_pass":
            assert one.arguments[0].startswith("$"), "a fixed name is resolved once, at start"
    assert not HTTP.all("upstream")


def test_what_a_client_says_about_itself_is_not_passed_on() -> None:
    headers = {one.arguments[0]: one.arguments[1] for one in HTTP.all("proxy_set_header")}

    assert headers["X-Forwarded-Proto"] == "$scheme"
    assert headers["X-Forwarded-For"] == "$remote_addr"
    assert headers["Forwarded"] == headers["X-Forwarded-Host"] == headers["X-Real-IP"] == '""'
    # One in a location would drop all of these.
    assert len([one for one in HTTP.walk() if one.name == "proxy_set_header"]) == len(headers)
    assert not [one for one in HTTP.walk() if one.name in ("real_ip_header", "set_real_ip_from")]


def test_plain_http_reaches_no_process() -> None:
    assert not [one for one in PLAIN.walk() if one.name == "proxy_pass"]
    assert PLAIN.one("location", "/api/").one("return").arguments[0] == "403"


def test_tls_is_modern() -> None:
    assert TLS.value("ssl_protocols") == "TLSv1.2 TLSv1.3"
    assert "ssl" in TLS.one("listen").arguments
    assert all("GCM" in cipher or "CHACHA" in cipher for cipher in TLS.value("ssl_ciphers").split(":"))


@pytest.mark.parametrize("server", [PLAIN, TLS], ids=["plain", "tls"])
def test_security_headers_are_on_every_answer(server: Directive) -> None:
    wanted = {one.arguments[0] for one in parse((FOLDER / "headers.conf").read_text()) if one.name == "add_header"}

    assert {"Strict-Transport-Security", "X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy"} <= wanted
    for block in (server, *server.all("location")):
        found = block.all("add_header")
        # One of its own drops all inherited ones, so it must bring them along.
        if block is server or found:
            assert wanted <= {one.arguments[0] for one in found}, block.arguments
            assert all(one.arguments[-1] == "always" for one in found)


def test_versions_are_not_told() -> None:
    assert HTTP.value("server_tokens") == "off"


def test_the_access_log_is_json_without_query_strings_bodies_or_headers() -> None:
    name, escape, *parts = HTTP.one("log_format").arguments
    text = "".join(part.strip("'") for part in parts)
    numbers = re.findall(r'(?<!")\$(\w+)', text)
    filled = re.sub(r'(?<!")\$\w+', "1", text)

    assert escape == "escape=json"
    assert HTTP.value("access_log") == f"/dev/stdout {name}"
    assert json.loads(filled)["event"] == "request.proxied"
    assert "status" not in numbers, "it may be 000, which is no JSON number"
    variables = set(re.findall(r"\$(\w+)", text))
    for forbidden in (
        "request",
        "request_uri",
        "args",
        "query_string",
        "request_body",
        "http_referer",
        "http_user_agent",
    ):
        assert forbidden not in variables
    assert not [name for name in variables if name.startswith(("http_", "arg_", "cookie_"))]


def test_the_error_log_quotes_no_request() -> None:
    # At `error` nginx quotes the request line, and Meta's verification carries the token in its query.
    assert MAIN.value("error_log") == "stderr crit"


def test_nginx_writes_to_tmp_only() -> None:
    for one in MAIN.walk():
        if one.name.endswith("_temp_path") or one.name == "pid":
            assert one.arguments[0].startswith("/tmp/"), one.name
    assert {one.name for one in HTTP.block if one.name.endswith("_temp_path")} == {
        f"{what}_temp_path" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    }


def test_what_nginx_refuses_is_a_problem_as_the_api_writes_it() -> None:
    pages = {page.arguments[-1]: page for page in TLS.all("error_page")}

    for name, page in pages.items():
        location = TLS.one("location", name)
        status, body = location.one("return").arguments
        told = json.loads(body.strip("'"))
        assert location.value("default_type") == "application/problem+json"
        assert told["status"] == int(status)
        assert told["type"] == f"urn:parley:problem:{told['code']}"
        # Without `=`, several codes keep their own, whatever the body says.
        assert page.arguments[:-1] == [status] or page.arguments[-2] == f"={status}"


def test_meta_s_certificate_is_checked_by_chain_and_name() -> None:
    optional = Directive("server", [], parse((FOLDER / "optional" / "meta-client-certificate.conf").read_text()))
    (mapping,) = [one for one in HTTP.all("map") if one.arguments[1] == "$is_meta"]
    pattern = re.compile(next(one.name for one in mapping.block if one.name != "default").strip('"').removeprefix("~"))

    assert optional.value("ssl_verify_client") == "optional", "people's browsers have none"
    assert int(optional.value("ssl_verify_depth")) >= 3
    assert optional.one("set").arguments == ["$refused_as_not_meta", "1"]
    assert WEBHOOK.one("if").block[0].arguments == ["403"]
    assert mapping.arguments[0] == '"$ssl_client_verify $ssl_client_s_dn"'
    name = "CN=client.webhooks.fbclientcerts.com"
    assert pattern.search(f"SUCCESS {name},O=Meta Platforms\\, Inc.,C=US")
    assert pattern.search(f"SUCCESS C=US,{name}")
    for other in (
        f"NONE {name}",
        f"FAILED:expired {name}",
        "SUCCESS CN=someone.else,O=Meta",
        f"SUCCESS {name}.evil.example",
        "SUCCESS CN=clientXwebhooksXfbclientcertsXcom",
        f"SUCCESS O=X{name}",
    ):
        assert not pattern.search(other), other


def test_nothing_optional_is_switched_on_in_the_repository() -> None:
    ignored = (FOLDER / ".gitignore").read_text()

    assert "/enabled/*" in ignored
    assert "/tls/*" in ignored
