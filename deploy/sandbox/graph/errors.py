"""Meta's error codes: HTTP status, title and details of each, and the body they come in.

Source: Meta, "Error codes" (support/error-codes), read 2026-11-22. Clients must decide on the code, never on the words.
"""

from __future__ import annotations

import secrets
from typing import Any

HELP = "https://developers.facebook.com/documentation/business-messaging/whatsapp/support/error-codes"
_PERMISSION = "Permission is either not granted or has been removed."

# code → HTTP status, title, details (None: Meta sends no `error_data` with it)
TABLE: dict[int, tuple[int, str, str | None]] = {
    0: (401, "AuthException", None),
    1: (400, "An unknown error occurred", None),
    2: (503, "Service temporarily unavailable", None),
    3: (500, "API Method", "Capability or permissions issue."),
    4: (400, "Too many API calls", "The app has reached its API call rate limit."),
    10: (403, "Permission denied", _PERMISSION),
    15: (400, "This method must be called with an app access_token.", None),
    33: (400, "Parameter value is not valid", "The business phone number has been deleted."),
    100: (400, "Invalid parameter", "A parameter is not acceptable."),
    190: (401, "Error validating access token: the session has expired.", None),
    200: (403, "API permission", _PERMISSION),
    368: (403, "Temporarily blocked for policies violations", "The account has been restricted or disabled."),
    2200: (400, "Callback verification failed", "The callback did not answer with the challenge."),
    2500: (400, "Unknown path components", None),
    80007: (400, "Rate limit issues", "The WhatsApp Business Account has reached its rate limit."),
    130403: (400, "Recipient is blocked", "The user is blocked by the business."),
    130429: (400, "Rate limit hit", "Cloud API message throughput has been reached."),
    130472: (400, "User's number is part of an experiment", "Message not sent as part of an experiment."),
    130497: (403, "Business account is restricted from messaging users in this country", "Country restriction."),
    131000: (500, "Something went wrong", "Message failed to send due to an unknown error."),
    131005: (403, "Access denied", _PERMISSION),
    131008: (400, "Required parameter is missing", "A required parameter is missing."),
    131009: (400, "Parameter value is not valid", "A parameter value is not valid."),
    131016: (500, "Service unavailable", "A service is temporarily unavailable."),
    131021: (400, "Recipient cannot be sender", "Recipient and sender phone number are the same."),
    131026: (400, "Message undeliverable", "Unable to deliver message."),
    131030: (400, "Recipient phone number not in allowed list", "Add the recipient to the allowed list."),
    131031: (403, "Account has been locked", "The account is restricted, or data could not be verified."),
    131037: (400, "Display name approval needed", "The 555 business number needs an approved display name."),
    131042: (400, "Business eligibility payment issue", "Payment method missing or credit line exhausted."),
    131045: (500, "Incorrect certificate", "Phone number registration error."),
    131047: (400, "Re-engagement message", "More than 24 hours have passed since the recipient last replied."),
    131048: (400, "Spam rate limit hit", "Restrictions on how many messages can be sent from this phone number."),
    131049: (
        400,
        "This message was not delivered to maintain healthy ecosystem engagement",
        "Per-user marketing limit.",
    ),
    131050: (400, "User stopped marketing messages", "The recipient stopped receiving marketing messages."),
    131051: (400, "Unsupported message type", "Message type is not supported."),
    131052: (400, "Media download error", "Unable to download the media sent by the user."),
    131053: (400, "Media upload error", "Unable to upload the media used in the message."),
    131055: (400, "Method not allowed", "Only marketing template messages are supported"),
    131056: (
        400,
        "(Business Account, Consumer Account) pair rate limit hit",
        "Too many messages sent to the same recipient in a short period.",
    ),
    131057: (500, "Account in maintenance mode", "The account may be undergoing a throughput upgrade."),
    131059: (400, "Invalid cursor", "The cursor is not valid."),
    131062: (400, "BSUID recipient not supported", "BSUID recipients are not supported for this message."),
    131064: (400, "Messaging limit reached", "The message failed because of a limit on this account."),
    132000: (400, "Template param count mismatch", "Number of parameters does not match the template."),
    132001: (404, "Template does not exist", "Template name does not exist in the translation."),
    132005: (400, "Template hydrated text too long", "Translated text too long."),
    132007: (400, "Template format character policy violated", "Template content violates a policy."),
    132008: (400, "Template parameter value invalid", "A parameter value is not acceptable."),
    132012: (400, "Template parameter format mismatch", "Parameter format does not match the template."),
    132015: (400, "Template is paused", "Template paused because of low quality."),
    132016: (400, "Template is disabled", "Template disabled permanently."),
    132018: (400, "Template parameter invalid", "A parameter holds characters that are not allowed."),
    132068: (400, "Flow is blocked", "Flow is in blocked state."),
    132069: (400, "Flow is throttled", "10 messages with this flow were already sent in the last hour."),
    133000: (500, "Incomplete deregistration", "A previous deregistration attempt failed."),
    133004: (503, "Server temporarily unavailable", "Server is temporarily unavailable."),
    133005: (400, "Two-step verification PIN mismatch", "The two-step verification PIN is incorrect."),
    133006: (400, "Phone number re-verification needed", "The phone number must be verified before registering."),
    133008: (400, "Too many two-step verification PIN guesses", "Too many PIN guesses for this number."),
    133009: (400, "Two-step verification PIN guessed too fast", "The PIN was entered too quickly."),
    133010: (400, "Phone number not registered", "Phone number is not registered on the platform."),
    133015: (400, "Please wait before registering", "The number was deleted recently."),
    133016: (400, "Account register deregister rate limit exceeded", "10 requests per number in 72 hours."),
    134100: (400, "Only marketing messages are supported", "Only marketing templates are supported."),
    134101: (400, "Your template is still syncing", "Try again in up to 10 minutes."),
    135000: (400, "Generic user error", "Message failed because of an unknown error with the request parameters."),
    137000: (400, "Recipient identity key hash mismatch", "recipient_identity_key_hash does not match."),
    139100: (
        400,
        "Failed to block/unblock users",
        "Failed to block some users, see the block_users response list for details",
    ),
    139101: (400, "Block list limit reached", "The block list is full."),
    139102: (400, "Block list concurrent update", "The block list changed while it was read."),
    139103: (400, "Internal error", "Internal error."),
    200005: (400, "Template insights not available", "Template insights are not available for this account."),
    200006: (400, "Template insights cannot be disabled", "Once enabled, template insights cannot be disabled."),
    200007: (400, "Template insights not enabled", "Template insights have not been enabled for this account."),
}
# Titles that Meta sends without the "(#code)" in front.
_BARE = {0, 190, 131056}


class Refused(Exception):
    """The request is answered with an error body; `code` decides everything not said."""

    def __init__(
        self,
        code: int,
        details: str | None = None,
        *,
        http: int | None = None,
        message: str | None = None,
        subcode: int | None = None,
        user_title: str | None = None,
        user_message: str | None = None,
        beside: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(f"Meta's code {code}")
        default_http, title, default_details = TABLE.get(code, (400, "A code nobody has seen", "Made up."))
        self.code = code
        self.http = default_http if http is None else http
        self.details = details or default_details
        self.title = title
        self.message = message or (title if code in _BARE else f"(#{code}) {title}")
        # A token refused without another word has expired.
        self.subcode = 463 if code == 190 and message is None else subcode
        self.user_title = user_title
        self.user_message = user_message
        self.beside = beside or {}

    def body(self) -> dict[str, Any]:
        """Return what Meta answers with."""
        error: dict[str, Any] = {"message": self.message, "type": "OAuthException", "code": self.code}
        if self.user_title is not None:
            error |= {
                "error_subcode": self.subcode,
                "is_transient": False,
                "error_user_title": self.user_title,
                "error_user_msg": self.user_message,
            }
            if self.subcode is None:
                del error["error_subcode"]
        else:
            if self.details is not None:
                error["error_data"] = {"messaging_product": "whatsapp", "details": self.details}
            if self.subcode is not None:
                error["error_subcode"] = self.subcode
            if self.code == 2:
                error["is_transient"] = True
        error["fbtrace_id"] = "A" + secrets.token_hex(11)
        return self.beside | {"error": error}

    def in_status(self) -> dict[str, Any]:
        """Return it as it stands in `statuses[].errors[]`."""
        return {
            "code": self.code,
            "title": self.title,
            "message": self.title,
            "error_data": {"details": self.details or self.title},
            "href": HELP,
        }


def missing_token() -> Refused:
    return Refused(190, message="An access token is required to request this resource.")


def unreadable_token() -> Refused:
    return Refused(190, message="Invalid OAuth access token - Cannot parse access token")


def expired_token() -> Refused:
    return Refused(190)


def no_such_object(node: str) -> Refused:
    """Answer for an id nobody knows; Meta does not say whether it is missing or merely not yours."""
    return Refused(
        100,
        http=400,
        subcode=33,
        message=(
            f"Unsupported request. Object with ID '{node[:80]}' does not exist, cannot be loaded due to missing "
            "permissions, or does not support this operation."
        ),
    )


def unknown_path(path: str) -> Refused:
    return Refused(2500, message=f"Unknown path components: {path[:200]}")
