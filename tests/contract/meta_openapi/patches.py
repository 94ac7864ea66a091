"""What is wrong with Meta's OpenAPI (v23.0) as published, and how it is mended. Reviewed by hand; each patch is needed.

`because` is the evidence: what the file rejects or accepts wrongly, and which line of the fact sheet
(spec/whatsapp-cloud-api.md, "4.2" and so on) or which fixture (tests/fixtures/graph) shows it.
`test_every_patch_is_needed` takes each away in turn: some body must then be judged wrongly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

ABSENT: Final = object()  # as a value: take away what is there

SCHEMAS = "/components/schemas"
MESSAGES = "/paths/~1{Version}~1{Phone-Number-ID}~1messages/post"
BLOCKS = "/paths/~1{Version}~1{Phone-Number-ID}~1block_users"
UPLOAD = "/paths/~1{Version}~1{Phone-Number-ID}~1media/post/requestBody/content/multipart~1form-data/schema"
TEMPLATES = "/paths/~1{Version}~1{WABA-ID}~1message_templates/post/requestBody/content/application~1json/schema"
JSON = "/requestBody/content/application~1json/schema"

MESSAGE_TYPES = (
    "TextMessage",
    "AudioMessage",
    "DocumentMessage",
    "ImageMessage",
    "LocationMessage",
    "VideoMessage",
    "StickerMessage",
    "ReactionMessage",
    "InteractiveMessage",
    "ContactsMessage",
    "TemplateMessage",
)


@dataclass(frozen=True, slots=True)
class Patch:
    """at: JSON pointers, each set to the value (a last step `-` appends to a list)."""

    name: str
    at: tuple[str, ...]
    to: Any
    because: str


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#{SCHEMAS}/{name}"}


def _closed(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties}


_TEXT = {"type": "string", "minLength": 1}


def _when(kind: str, **properties: Any) -> dict[str, Any]:
    """For one type of interactive message: what its keys must be, all of which are required."""
    required = [name for name, schema in properties.items() if schema is not False and not schema.get("optional")]
    return {
        "if": {"properties": {"type": {"const": kind}}, "required": ["type"]},
        "then": {"properties": properties, "required": required},
    }


_NAMED_ACTION = {"required": ["name"], "additionalProperties": False}
_BODY_1024 = {"properties": {"text": {"maxLength": 1024}}}
_TEXT_HEADER = {"properties": {"type": {"const": "text"}}}
_OPTIONAL_TEXT_HEADER = _TEXT_HEADER | {"optional": True}
_CTA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "parameters"],
    "properties": {
        "name": {"const": "cta_url"},
        "parameters": {
            **_closed(display_text={**_TEXT, "maxLength": 20}, url={"type": "string", "pattern": "^https?://"}),
            "required": ["display_text", "url"],
        },
    },
}
_PRODUCT = {
    **_closed(catalog_id=_TEXT, product_retailer_id=_TEXT),
    "required": ["catalog_id", "product_retailer_id"],
}
_CARD = {
    **_closed(
        card_index={"type": "integer", "minimum": 0, "maximum": 9},
        type={"enum": ["cta_url", "product"]},
        header=_ref("HeaderObject"),
        body={**_closed(text={**_TEXT, "maxLength": 160}), "required": ["text"]},
        action={"oneOf": [_CTA, _PRODUCT]},
    ),
    "required": ["card_index", "type", "action"],
}


def _named(name: str) -> dict[str, Any]:
    return {**_NAMED_ACTION, "properties": {"name": {"const": name}}}


_SECTIONS = {
    "minItems": 1,
    "maxItems": 10,
    "if": {"minItems": 2},
    "then": {"items": {"required": ["title"]}},
}
_INTERACTIVE = [
    _when("button", body=_BODY_1024, action={**_closed(buttons={}), "required": ["buttons"]}),
    _when(
        "list",
        header=_OPTIONAL_TEXT_HEADER,
        body={},
        action={
            **_closed(button={}, sections={**_SECTIONS, "items": {"required": ["rows"]}}),
            "required": ["button", "sections"],
        },
    ),
    _when("cta_url", body=_BODY_1024, action=_CTA),
    _when(
        "flow", body=_BODY_1024, action={**_closed(name={"const": "flow"}, parameters={}), "required": ["parameters"]}
    ),
    _when("location_request_message", header=False, footer=False, body=_BODY_1024, action=_named("send_location")),
    _when("contact_request", header=False, body=_BODY_1024, action=_named("request_contact_info")),
    _when("call_permission_request", header=False, action=_named("call_permission_request")),
    _when("product", header=False, action=_PRODUCT),
    _when(
        "product_list",
        header=_TEXT_HEADER,
        body=_BODY_1024,
        action={
            **_closed(catalog_id={}, sections={**_SECTIONS, "items": {"required": ["product_items"]}}),
            "required": ["catalog_id", "sections"],
        },
    ),
    _when(
        "catalog_message",
        header=False,
        body=_BODY_1024,
        action={**_closed(name={"const": "catalog_message"}, parameters={}), "required": ["name"]},
    ),
    _when(
        "carousel",
        header=False,
        footer=False,
        body=_BODY_1024,
        action={
            **_closed(cards={"type": "array", "minItems": 2, "maxItems": 10, "items": _CARD}),
            "required": ["cards"],
        },
    ),
]

_MEDIA = {
    **_closed(
        id=_TEXT,
        link={"type": "string", "pattern": "^https?://"},
        caption={**_TEXT, "maxLength": 1024},
        filename=_TEXT,
        voice={"type": "boolean"},
    ),
    "oneOf": [{"required": ["id"]}, {"required": ["link"]}],
}
_LANGUAGE = {
    **_closed(code={"type": "string", "pattern": "^[a-z]{2,3}(_[A-Z]{2})?$"}, policy={"const": "deterministic"})
}
_SHOWN = {**_closed(fallback_value=_TEXT, code={"type": "string"}, amount_1000={"type": "integer"})}


def _parameter(kind: str, value: Any, *, key: str | None = None) -> dict[str, Any]:
    key = key or kind
    return {
        **_closed(type={"const": kind}, parameter_name={"type": "string"}, **{key: value}),
        "required": ["type", key],
    }


_PARAMETERS = [
    _parameter("text", {"type": "string", "minLength": 1, "not": {"pattern": r"[\n\t]| {5}"}}),
    _parameter("currency", {**_SHOWN, "required": ["fallback_value", "code", "amount_1000"]}),
    _parameter("date_time", {**_SHOWN, "required": ["fallback_value"]}),
    _parameter("image", _ref("MediaObject")),
    _parameter("video", _ref("MediaObject")),
    _parameter("document", _ref("MediaObject")),
    _parameter("location", {"$ref": f"#{SCHEMAS}/LocationMessage/allOf/1/properties/location"}),
    _parameter("product", _PRODUCT),
    _parameter("payload", _TEXT),
    _parameter("coupon_code", {**_TEXT, "maxLength": 20}),
    _parameter(
        "action",
        _closed(
            flow_token=_TEXT,
            flow_action_data={"type": "object"},
            thumbnail_product_retailer_id=_TEXT,
            sections={"type": "array", "maxItems": 10, "items": _ref("SectionObject")},
        ),
    ),
    _parameter(
        "limited_time_offer",
        {**_closed(expiration_time_ms={"type": "integer", "minimum": 10**12}), "required": ["expiration_time_ms"]},
    ),
    _parameter(
        "tap_target_configuration",
        {"type": "array", "items": {**_closed(url=_TEXT, title=_TEXT), "required": ["url", "title"]}},
    ),
]
_COMPONENT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["type"],
    "properties": {
        "type": {"enum": ["header", "body", "button", "carousel", "limited_time_offer", "tap_target_configuration"]},
        "sub_type": {"enum": ["quick_reply", "url", "copy_code", "catalog", "flow", "mpm", "spm", "voice_call"]},
        "index": {"oneOf": [{"type": "string", "pattern": "^[0-9]$"}, {"type": "integer", "minimum": 0, "maximum": 9}]},
        "parameters": {"type": "array", "items": {"oneOf": _PARAMETERS}},
        "cards": {
            "type": "array",
            "minItems": 2,
            "maxItems": 10,
            "items": {
                **_closed(
                    card_index={"type": "integer"}, components={"type": "array", "items": _ref("TemplateComponent")}
                ),
                "required": ["card_index", "components"],
            },
        },
    },
    "allOf": [
        {
            "if": {"properties": {"type": {"const": "button"}}},
            "then": {"required": ["sub_type", "index"]},
            "else": {"properties": {"sub_type": False, "index": False}},
        },
        {
            "if": {"properties": {"type": {"const": "carousel"}}},
            "then": {"required": ["cards"]},
            "else": {"properties": {"cards": False}},
        },
        {
            "if": {"properties": {"type": {"const": "header"}}},
            "then": {"properties": {"parameters": {"minItems": 1, "maxItems": 1}}, "required": ["parameters"]},
        },
    ],
}

_READ_RECEIPT = {
    **_closed(
        messaging_product={"const": "whatsapp"},
        status={"const": "read"},
        message_id=_TEXT,
        typing_indicator={**_closed(type={"const": "text"}), "required": ["type"]},
    ),
    "required": ["messaging_product", "status", "message_id"],
}
_SUCCESS = {"type": "object", "required": ["success"], "properties": {"success": {"type": "boolean"}}}
_ACCEPTED = {
    "type": "object",
    "required": ["messaging_product", "contacts", "messages"],
    "properties": {
        "messaging_product": {"const": "whatsapp"},
        "contacts": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["input"],
                "properties": {
                    "input": {"type": "string"},
                    "wa_id": {"type": "string"},
                    "user_id": {"type": "string"},
                },
            },
        },
        "messages": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["id"],
                "properties": {
                    "id": {"type": "string", "pattern": "^wamid\\."},
                    "group_id": {"type": "string"},
                    "message_status": _ref("MessageStatus"),
                },
            },
        },
    },
}
_BLOCK = {
    **_closed(
        messaging_product={"const": "whatsapp"},
        block_users={
            "type": "array",
            "minItems": 1,
            "items": {**_closed(user=_TEXT), "required": ["user"]},
        },
    ),
    "required": ["messaging_product", "block_users"],
}

PATCHES = [
    # --- the envelope -------------------------------------------------------------------------------------------------
    Patch(
        "unknown_keys",
        tuple(f"{SCHEMAS}/{name}/unevaluatedProperties" for name in MESSAGE_TYPES),
        False,
        "TemplateMessage takes any key, and with the next patch so would the others. 4.1 lists the keys.",
    ),
    Patch(
        "all_of_base",
        tuple(f"{SCHEMAS}/{name}/allOf/1/additionalProperties" for name in MESSAGE_TYPES[:-1]),
        ABSENT,
        "Rejects every message: `additionalProperties: false` beside an `allOf` base forbids the base's own keys "
        "(`to`, `messaging_product` …). All send_*_ok fixtures but templates.",
    ),
    Patch(
        "messaging_product",
        (f"{SCHEMAS}/BaseMessageProperties/properties/messaging_product",),
        {"const": "whatsapp"},
        "Accepts `messaging_product: banana`. 4.1: it is whatsapp.",
    ),
    Patch(
        "to_or_recipient",
        (f"{SCHEMAS}/BaseMessageProperties/required",),
        ["messaging_product", "type"],
        "Rejects sends by business-scoped user id: `to` is required. 4.1: to?, recipient?; send_bsuid_ok. And those "
        "that leave `recipient_type` to Meta: error_131062 is refused for its recipient, not for that.",
    ),
    Patch(
        "some_recipient",
        (f"{SCHEMAS}/BaseMessageProperties/anyOf",),
        [{"required": ["to"]}, {"required": ["recipient"]}],
        "With the patch before, a message to nobody would pass. 4.1; send_both_to_and_recipient_ok has both.",
    ),
    Patch(
        "to",
        (f"{SCHEMAS}/BaseMessageProperties/properties/to",),
        _TEXT,
        "Accepts an empty `to`. 4.1: digits with country code, or a group's id.",
    ),
    Patch(
        "recipient",
        (f"{SCHEMAS}/BaseMessageProperties/properties/recipient",),
        {"type": "string", "pattern": r"^[A-Z]{2}\.(ENT\.)?[A-Za-z0-9]{1,128}$"},
        "Does not know `recipient`. Section 3; send_bsuid_ok, send_parent_bsuid_ok.",
    ),
    Patch(
        "callback_data",
        (f"{SCHEMAS}/BaseMessageProperties/properties/biz_opaque_callback_data",),
        {"type": "string", "maxLength": 512},
        "Does not know `biz_opaque_callback_data`. 4.1; send_text_ok.",
    ),
    Patch(
        "identity_hash",
        (f"{SCHEMAS}/BaseMessageProperties/properties/recipient_identity_key_hash",),
        {"type": "string"},
        "Does not know `recipient_identity_key_hash`. 4.1; error_137000.",
    ),
    Patch(
        "context",
        (f"{SCHEMAS}/MessageContext",),
        {**_closed(message_id=_TEXT), "required": ["message_id"]},
        "Accepts a context that names nothing. 4.1: context{message_id}.",
    ),
    Patch(
        "read_receipt",
        (f"{MESSAGES}{JSON}",),
        {"oneOf": [_ref("Message"), _READ_RECEIPT]},
        "Does not know read marks and typing on this path. 4.5; mark_read_ok, mark_read_typing_ok.",
    ),
    # --- texts and files ----------------------------------------------------------------------------------------------
    Patch(
        "text",
        (f"{SCHEMAS}/TextMessage/allOf/1/properties/text",),
        {**_closed(body={**_TEXT, "maxLength": 4096}, preview_url={"type": "boolean"}), "required": ["body"]},
        "Accepts a text without a body, or of any length. 4.2: 4,096; send_text_ok.",
    ),
    Patch(
        "direct_send_category",
        (f"{SCHEMAS}/TextMessage/allOf/1/properties/category",),
        {"enum": ["utility", "authentication"]},
        "Does not know Direct Send. 4.4; send_direct_send_ok.",
    ),
    Patch(
        "direct_send_ttl",
        (f"{SCHEMAS}/TextMessage/allOf/1/properties/ttl_seconds",),
        {"type": "integer", "minimum": 30, "maximum": 43_200},
        "Does not know Direct Send. 4.4; send_direct_send_ok.",
    ),
    Patch(
        "media",
        (f"{SCHEMAS}/MediaObject",),
        _MEDIA,
        "Accepts any key (`captoin`), any link, and captions of any length. 4.2: caption 1,024.",
    ),
    Patch(
        "image_and_video_keys",
        tuple(
            f"{SCHEMAS}/{name}/allOf/1/properties/{key}"
            for name, key in (("ImageMessage", "image"), ("VideoMessage", "video"))
        ),
        {"allOf": [_ref("MediaObject"), {"properties": {"filename": False, "voice": False}}]},
        "Accepts a file name on a picture. 4.2: {id | link, caption?}.",
    ),
    Patch(
        "audio_keys",
        (f"{SCHEMAS}/AudioMessage/allOf/1/properties/audio",),
        {"allOf": [_ref("MediaObject"), {"properties": {"filename": False, "caption": False}}]},
        "Accepts a caption on audio. 4.2: no caption.",
    ),
    Patch(
        "document_keys",
        (f"{SCHEMAS}/DocumentMessage/allOf/1/properties/document",),
        {"allOf": [_ref("MediaObject"), {"properties": {"voice": False}}]},
        "Accepts `voice` on a document. 4.2.",
    ),
    Patch(
        "coordinates",
        tuple(
            f"{SCHEMAS}/LocationMessage/allOf/1/properties/location/properties/{name}"
            for name in ("latitude", "longitude")
        ),
        {
            "oneOf": [
                {"type": "number", "minimum": -180, "maximum": 180},
                {"type": "string", "pattern": r"^-?\d{1,3}(\.\d+)?$"},
            ]
        },
        "Rejects numbers and accepts any string. send_location_ok: strings or numbers.",
    ),
    Patch(
        "location_required",
        (f"{SCHEMAS}/LocationMessage/allOf/1/properties/location/required",),
        ["latitude", "longitude"],
        "Accepts a location that is nowhere. 4.2.",
    ),
    Patch(
        "reaction_required",
        (f"{SCHEMAS}/ReactionMessage/allOf/1/properties/reaction/required",),
        ["message_id", "emoji"],
        "Accepts a reaction to nothing. 4.2: {message_id, emoji}.",
    ),
    Patch(
        "reaction_is_no_reply",
        (f"{SCHEMAS}/ReactionMessage/allOf/1/properties/context",),
        False,
        "Accepts a reaction with a context. 4.2: not with context.",
    ),
    Patch(
        "contact_cards",
        (f"{SCHEMAS}/ContactsMessage/allOf/1/properties/contacts/maxItems",),
        257,
        "Rejects more than 5 cards. 4.2 and send_contacts_ok: up to 257.",
    ),
    Patch(
        "contact_name",
        (f"{SCHEMAS}/ContactObject/required",),
        ["name"],
        "Accepts a card without a name. 4.2: formatted_name + another name part.",
    ),
    Patch(
        "contact_name_parts",
        (f"{SCHEMAS}/NameObject/allOf",),
        [
            {"required": ["formatted_name"]},
            {
                "anyOf": [
                    {"required": [part]} for part in ("first_name", "middle_name", "last_name", "prefix", "suffix")
                ]
            },
        ],
        "Accepts a name of one part. 4.2: formatted_name + another name part.",
    ),
    # --- interactive --------------------------------------------------------------------------------------------------
    Patch(
        "interactive_types",
        (f"{SCHEMAS}/InteractiveObject/properties/type/enum",),
        [
            "button",
            "list",
            "cta_url",
            "location_request_message",
            "flow",
            "product",
            "product_list",
            "catalog_message",
            "carousel",
            "call_permission_request",
            "contact_request",
        ],
        "Rejects four types. 4.2; send_cta_url_ok, send_location_request_ok, send_carousel_ok, "
        "send_contact_info_request_ok.",
    ),
    Patch(
        "interactive_keys",
        (f"{SCHEMAS}/InteractiveObject/additionalProperties",),
        False,
        "Accepts any key beside header, body, footer and action. 4.2.",
    ),
    Patch(
        "interactive_by_type",
        (f"{SCHEMAS}/InteractiveObject/allOf",),
        _INTERACTIVE,
        "Accepts any action for any type, without a body, with any header. 4.2, row by row.",
    ),
    Patch(
        "actions",
        (f"{SCHEMAS}/ActionObject/oneOf/-",),
        _CTA,
        "Does not know this action. 4.2; send_cta_url_ok.",
    ),
    Patch(
        "carousel_action",
        (f"{SCHEMAS}/ActionObject/oneOf/-",),
        {"required": ["cards"]},
        "Does not know this action. 4.2; send_carousel_ok.",
    ),
    Patch(
        "named_actions",
        (f"{SCHEMAS}/ActionObject/oneOf/5/properties/name/enum",),
        ["call_permission_request", "send_location", "request_contact_info"],
        "Does not know these actions. 4.2; send_location_request_ok, send_contact_info_request_ok.",
    ),
    Patch(
        "catalog_thumbnail",
        (f"{SCHEMAS}/ActionObject/oneOf/3/required",),
        ["name"],
        "Rejects a catalogue without a thumbnail. 4.2: thumbnail_product_retailer_id?.",
    ),
    Patch(
        "interactive_body",
        (f"{SCHEMAS}/BodyObject",),
        {**_closed(text={**_TEXT, "maxLength": 4096}), "required": ["text"]},
        "Rejects a list's body past 1,024. 4.2 and send_list_ok: 4,096 (the others stay at 1,024, by type above).",
    ),
    Patch(
        "interactive_footer",
        (f"{SCHEMAS}/FooterObject",),
        {**_closed(text={**_TEXT, "maxLength": 60}), "required": ["text"]},
        "Accepts an empty footer. 4.2: footer 60.",
    ),
    Patch(
        "header_by_type",
        (f"{SCHEMAS}/HeaderObject/allOf",),
        [
            {
                "if": {"properties": {"type": {"const": kind}}},
                "then": {"required": [kind]},
                "else": {"properties": {kind: False}},
            }
            for kind in ("text", "image", "video", "document")
        ],
        "Accepts a header that says image and brings none. 4.2.",
    ),
    Patch(
        "header_keys",
        (f"{SCHEMAS}/HeaderObject/additionalProperties",),
        False,
        "Accepts any key in a header. 4.2.",
    ),
    Patch(
        "header_text",
        (f"{SCHEMAS}/HeaderObject/properties/text/minLength",),
        1,
        "Accepts an empty header. 4.2: header text 60.",
    ),
    Patch(
        "button_keys",
        (f"{SCHEMAS}/ActionObject/oneOf/1/properties/buttons/items/properties/reply",),
        {
            **_closed(id={**_TEXT, "maxLength": 256}, title={**_TEXT, "maxLength": 20}),
            "required": ["id", "title"],
        },
        "Accepts empty titles and any key. 4.2: title 20, id 256.",
    ),
    Patch(
        "section_keys",
        (f"{SCHEMAS}/SectionObject/additionalProperties",),
        False,
        "Accepts any key in a section. 4.2.",
    ),
    Patch(
        "row_keys",
        (f"{SCHEMAS}/SectionObject/properties/rows",),
        {
            "type": "array",
            "minItems": 1,
            "maxItems": 10,
            "items": {
                **_closed(
                    id={**_TEXT, "maxLength": 200},
                    title={**_TEXT, "maxLength": 24},
                    description={**_TEXT, "maxLength": 72},
                ),
                "required": ["id", "title"],
            },
        },
        "Accepts a section without rows, empty titles and any key. 4.2.",
    ),
    # --- template messages --------------------------------------------------------------------------------------------
    Patch(
        "template_language",
        (f"{SCHEMAS}/LanguageObject",),
        {**_LANGUAGE, "required": ["code"]},
        "Rejects every template: `language.policy` is required. 4.4: language{code}; send_template_positional_ok.",
    ),
    Patch(
        "template_keys",
        (f"{SCHEMAS}/TemplateObject/additionalProperties",),
        False,
        "Accepts any key. 4.4: name, language, components.",
    ),
    Patch(
        "template_name",
        (f"{SCHEMAS}/TemplateObject/properties/name",),
        {"type": "string", "pattern": "^[a-z0-9_]{1,512}$"},
        "Accepts any name. 6.1: at most 512 of [a-z0-9_].",
    ),
    Patch(
        "template_component",
        (f"{SCHEMAS}/TemplateComponent",),
        _COMPONENT,
        "Rejects carousels, offers, coupons, flows, and every button position but 2-6 and 1, 4 and the comma (`^[2-6, "
        "11-14]$` is a class of characters); accepts any parameter. 4.4; the send_template_*_ok fixtures.",
    ),
    Patch(
        "marketing_callback_data",
        (f"{SCHEMAS}/MarketingMessageRequestPayload/properties/biz_opaque_callback_data",),
        {"type": "string", "maxLength": 512},
        "Does not know `biz_opaque_callback_data`. 4.4: the Marketing Messages API takes the same body.",
    ),
    # --- other requests -----------------------------------------------------------------------------------------------
    Patch(
        "block_users",
        (f"{BLOCKS}/post{JSON}", f"{BLOCKS}/delete{JSON}"),
        _BLOCK,
        "Accepts anything. 4.6; block_users_ok.",
    ),
    Patch(
        "upload",
        (UPLOAD,),
        {
            **_closed(messaging_product={"const": "whatsapp"}, type=_TEXT, file={"type": "string"}),
            "required": ["messaging_product", "file"],
        },
        "Accepts an upload without a file. 4.3; media_upload_ok.",
    ),
    Patch(
        "template_create_required",
        (f"{TEMPLATES}/required",),
        ["name", "language", "category", "components"],
        "Accepts an empty body. 6.1; template_create_ok.",
    ),
    Patch(
        "template_create_keys",
        (f"{TEMPLATES}/additionalProperties",),
        False,
        "Accepts any key. 6.1 lists them.",
    ),
    Patch(
        "template_create_name",
        (f"{TEMPLATES}/properties/name",),
        {"type": "string", "pattern": "^[a-z0-9_]{1,512}$"},
        "Accepts any name. 6.1: at most 512 of [a-z0-9_].",
    ),
    Patch(
        "template_create_category",
        (f"{TEMPLATES}/properties/category",),
        {"enum": ["AUTHENTICATION", "MARKETING", "UTILITY"]},
        "Accepts any category. 5.5 and 6.1.",
    ),
    Patch(
        "template_create_format",
        (f"{TEMPLATES}/properties/parameter_format",),
        {"enum": ["POSITIONAL", "NAMED"]},
        "Does not know `parameter_format`. 6.1; template_create_ok.",
    ),
    Patch(
        "template_create_ttl",
        (f"{TEMPLATES}/properties/message_send_ttl_seconds",),
        {"type": "integer", "minimum": -1, "maximum": 2_592_000},
        "Does not know `message_send_ttl_seconds`. 6.2; template_create_auth_ok.",
    ),
    Patch(
        "template_create_change",
        (f"{TEMPLATES}/properties/allow_category_change",),
        {"type": "boolean"},
        "Does not know `allow_category_change`. 6.1.",
    ),
    Patch(
        "template_create_component",
        (f"{TEMPLATES}/properties/components/items/properties/type",),
        {
            "enum": [
                "HEADER",
                "BODY",
                "FOOTER",
                "BUTTONS",
                "CAROUSEL",
                "LIMITED_TIME_OFFER",
                "CALL_PERMISSION_REQUEST",
            ]
        },
        "Accepts any component. 6.2.",
    ),
    Patch(
        "template_create_component_required",
        (f"{TEMPLATES}/properties/components/items/required",),
        ["type"],
        "Accepts a component of no kind. 6.2.",
    ),
    # --- responses ----------------------------------------------------------------------------------------------------
    Patch(
        "accepted",
        (f"{SCHEMAS}/MessageResponsePayload", f"{SCHEMAS}/MarketingMessageResponsePayload"),
        _ACCEPTED,
        "Accepts an answer without a message. 4.1; send_text_ok, send_bsuid_ok, send_group_ok.",
    ),
    Patch(
        "success_of_a_read_mark",
        (f"{MESSAGES}/responses/200/content/application~1json/schema",),
        {"oneOf": [_ref("MessageResponsePayload"), _SUCCESS]},
        "Knows the answer to messages only. 4.5: {success:true}; mark_read_ok.",
    ),
    Patch(
        "listed_numbers",
        (f"{SCHEMAS}/WhatsAppBusinessAccountPhoneNumber/required",),
        ["id"],
        "Rejects a list without `status`. Graph answers with the fields asked for; phone_numbers_list_ok.",
    ),
    Patch(
        "quality_rating",
        (f"{SCHEMAS}/WhatsAppPhoneNumberQualityRating/enum",),
        ["GREEN", "YELLOW", "RED", "NA", "UNKNOWN"],
        "Does not know the rating of a number nobody has rated yet. phone_numbers_list_ok.",
    ),
    Patch(
        "file_size",
        ("/paths/~1{Version}~1{Media-ID}/get/responses/200/content/application~1json/schema/properties/file_size",),
        {"type": ["integer", "string"]},
        "Rejects a number. media_url_ok: a number, which may arrive as a string.",
    ),
]
