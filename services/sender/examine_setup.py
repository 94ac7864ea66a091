"""The doctor's look at the installation: keys, storage, our clock, and the webhook as Meta meets it."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from uuid import UUID

import httpx

from services.sender.diagnosis import Check, Diagnosis
from services.sender.seal import TokenOpener
from shared.domain.errors import ParleyError
from shared.storage.port import Storage
from shared.store.channels import TokenedChannel

# An empty delivery: signed, kept, and recorded as nothing.
_HARMLESS = b'{"object":"whatsapp_business_account","entry":[]}'
_CLOCK_WARN_S, _CLOCK_FAIL_S = 10.0, 120.0
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
_ANSWER_CHARACTERS = 64


def examine_keys(channels: Sequence[TokenedChannel], opener: TokenOpener) -> list[Check]:
    """Say whether tokens wait to be sealed to the newest key. Numbers whose key is missing are said one by one."""
    found = Diagnosis()
    newest, *older = opener.key_ids
    used = Counter(channel.key_id for channel in channels if channel.key_id is not None)
    waiting = sum(used[key] for key in older)
    if waiting:
        found.warn(
            "keys",
            f"{waiting} of {used.total()} tokens are sealed to an older key than {newest}.",
            "Run `python -m services.sender keys rotate`; see docs/runbooks/token-keys.md.",
        )
    elif older:
        found.warn(
            "keys",
            "No token needs the older keys any more.",
            "Take them out of WHATSAPP_TOKEN_KEYS, once the api has the newest as WHATSAPP_TOKEN_PUBLIC_KEY.",
        )
    else:
        found.ok("keys", f"One key, {newest}; {used[newest]} tokens are sealed to it.")
    return found.checks


async def examine_storage(storage: Storage) -> list[Check]:
    """Write a file, and delete it again."""
    found = Diagnosis()
    # Of no workspace: the nil uuid is nobody's.
    key = f"{UUID(int=0)}/1970/01/{UUID(bytes=secrets.token_bytes(16))}"
    try:
        # Where files come in: from another disk than the volume's it could not be put in its place by renaming.
        with tempfile.TemporaryDirectory(dir=storage.spool_dir) as folder:
            file = Path(folder) / "doctor"
            file.write_bytes(b"doctor")
            await storage.put(key, file, mime_type="text/plain")
        await storage.delete([key])
    except (ParleyError, OSError) as error:
        why = error.code if isinstance(error, ParleyError) else type(error).__name__
        found.fail(
            "storage",
            f"A file could not be written ({why}): what people send and get cannot be kept.",
            "STORAGE_DIR: give its folder to the user the processes run as, and see that the disk has room. "
            "Supabase: compare STORAGE_SERVICE_KEY, and see that the bucket exists.",
        )
    else:
        found.ok("storage", "A file was written and deleted.")
    return found.checks


async def examine_clock(http: httpx.AsyncClient, graph_url: str, *, now: Callable[[], datetime]) -> list[Check]:
    """Compare our clock with the Date of an answer of Meta's, which has whole seconds."""
    found = Diagnosis()
    try:
        before = now()
        answer = await http.get(graph_url)
        after = now()
        theirs = parsedate_to_datetime(answer.headers["date"])
    except (httpx.HTTPError, KeyError, ValueError):
        fix = "See whether this machine reaches WHATSAPP_GRAPH_URL: DNS, firewall, proxy."
        found.warn("clock", "Meta's clock could not be read.", fix)
        return found.checks
    ours = before + (after - before) / 2
    offset_s = (ours - theirs.astimezone(UTC)).total_seconds() - 0.5  # its mean within that second
    shown = f"Our clock is {abs(offset_s):.0f} s {'ahead of' if offset_s > 0 else 'behind'} Meta's."
    fix = "Let the machine follow a time server (timedatectl set-ntp true): reply windows depend on it."
    if abs(offset_s) > _CLOCK_FAIL_S:
        found.fail("clock", shown, fix)
    elif abs(offset_s) > _CLOCK_WARN_S:
        found.warn("clock", shown, fix)
    else:
        found.ok("clock", shown)
    return found.checks


async def examine_webhook(
    http: httpx.AsyncClient, url: str | None, *, verify_token: str | None, app_secret: str | None
) -> list[Check]:
    """Do to our webhook what Meta does, from here."""
    found = Diagnosis()
    if url is None:
        fix = "Set WHATSAPP_WEBHOOK_URL to the callback URL in Meta's app dashboard, for this command."
        found.warn("callback", "Not looked at: the webhook's address is not known here.", fix)
        return found.checks
    if not url.startswith("https://") and httpx.URL(url).host not in _LOOPBACK:
        found.fail(
            "callback", "The webhook's address is not HTTPS.", "Meta delivers to HTTPS only, with a public certificate."
        )
    if not await _verify(http, url, verify_token, found):
        return found.checks
    if app_secret is None:
        found.warn(
            "signature", "Not looked at: no app secret is known here.", "Set WHATSAPP_APP_SECRETS as ingest has it."
        )
        return found.checks
    await _sign(http, url, app_secret, found)
    return found.checks


async def _verify(http: httpx.AsyncClient, url: str, verify_token: str | None, found: Diagnosis) -> bool:
    """Say whether something of ours answers at all."""
    challenge = str(secrets.randbelow(10**9))
    query = {"hub.mode": "subscribe", "hub.verify_token": verify_token or "doctor", "hub.challenge": challenge}
    try:
        answer = await http.get(url, params=query)
    except httpx.HTTPError as error:
        found.fail(
            "callback",
            f"The webhook cannot be reached ({type(error).__name__}).",
            "See that ingest and nginx run, that the name leads to them, and that the certificate is valid.",
        )
        return False
    if verify_token is None and answer.status_code == 403:
        found.warn(
            "callback", "Reached; the verify token is not known here.", "Set WHATSAPP_VERIFY_TOKEN as ingest has it."
        )
    elif answer.status_code == 200 and answer.text[:_ANSWER_CHARACTERS] == challenge:
        found.ok("callback", "The webhook answers Meta's verification.")
    elif answer.status_code == 403:
        fix = "Use the same WHATSAPP_VERIFY_TOKEN in ingest, here, and as verify token in Meta's app dashboard."
        found.fail("callback", "The webhook refuses the verify token.", fix)
    else:
        fix = "WHATSAPP_VERIFY_TOKEN aside, something else answers there: the path is /api/webhooks/whatsapp."
        found.fail("callback", f"The webhook answers a verification with {answer.status_code}.", fix)
        return False
    return True


async def _sign(http: httpx.AsyncClient, url: str, app_secret: str, found: Diagnosis) -> None:
    right = await _post(http, url, app_secret)
    wrong = await _post(http, url, secrets.token_hex(16))
    if wrong == 200:
        found.fail(
            "signature",
            "The webhook takes a wrongly signed body: anybody can write into the inbox.",
            "What answers there is not ingest, or not this version of it; take it off the net until it is.",
        )
    elif right == 401:
        fix = "Use the app secret of Meta's dashboard (App settings, Basic) in WHATSAPP_APP_SECRETS of ingest and here."
        found.fail("signature", "The webhook refuses what is signed with our app secret.", fix)
    elif right != 200 or wrong != 401:
        fix = "503: see ingest's /ready, Redis and PostgreSQL. Else something on the way answers: compare nginx's logs."
        found.fail(
            "signature", f"A signed body got {right}, a wrongly signed one {wrong}, instead of 200 and 401.", fix
        )
    else:
        found.ok("signature", "A signed body is taken, a wrongly signed one refused.")


async def _post(http: httpx.AsyncClient, url: str, secret: str) -> int | str:
    signature = hmac.digest(secret.encode(), _HARMLESS, hashlib.sha256).hex()
    headers = {"content-type": "application/json", "x-hub-signature-256": f"sha256={signature}"}
    try:
        return (await http.post(url, content=_HARMLESS, headers=headers)).status_code
    except httpx.HTTPError as error:
        return type(error).__name__
