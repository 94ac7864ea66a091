// What one message looks like, type by type: data in, elements out. Text reaches the page as textContent and in no other
// way; files come from the sandbox itself. `act(message)` sends the customer's answer to a button.
"use strict";

export function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined && text !== null) made.textContent = text;
  return made;
}

const paragraph = (text, className = "") => {
  const made = make("p", className, text);
  made.dir = "auto";
  return made;
};

function button(text, className, onTap) {
  const made = make("button", className, text);
  made.type = "button";
  made.dir = "auto";
  made.addEventListener("click", onTap);
  return made;
}

// An address a business wrote: shown and opened elsewhere, and only when it is one.
function link(text, address) {
  const made = make("a", "tap", text);
  if (/^https?:\/\//.test(address ?? "")) {
    made.href = address;
    made.target = "_blank";
    made.rel = "noopener noreferrer";
    made.title = address;
  }
  return made;
}

const hostOf = (address) => {
  try {
    return new URL(address).host;
  } catch {
    return "";
  }
};

function card(title, lines, kind) {
  const made = make("div", "card");
  const sign = make("span", "card-sign", kind);
  sign.setAttribute("aria-hidden", "true");
  const text = make("span", "card-text");
  text.append(make("b", "", title), ...lines.filter(Boolean).map((line) => make("small", "", line)));
  made.append(sign, text);
  return made;
}

const SIGNS = { image: "IMG", video: "VID", audio: "AUD", document: "DOC", sticker: "STK", gif: "GIF" };
const WORDS = { image: "Picture", video: "Video", audio: "Audio", document: "Document", sticker: "Sticker", gif: "GIF" };

function media(kind, content) {
  const name = content.filename || content.caption || WORDS[kind];
  if (!content.id) return card(content.filename || WORDS[kind], [`by link, from ${hostOf(content.link)}`], SIGNS[kind]);
  const source = `/sandbox/media/${encodeURIComponent(content.id)}`;
  if (kind === "document") {
    const made = card(name, [content.mime_type ?? ""], SIGNS.document);
    const open = link("Open", location.origin + source);
    made.append(open);
    return made;
  }
  const tag = { image: "img", sticker: "img", gif: "video" }[kind] ?? kind;
  const made = make(tag, kind === "sticker" ? "sticker" : "media");
  made.src = source;
  if (made.tagName === "IMG") {
    made.alt = content.caption || WORDS[kind];
    made.loading = "lazy";
  } else {
    made.controls = true;
    made.preload = "metadata";
    made.setAttribute("aria-label", content.voice ? "Voice message" : WORDS[kind]);
  }
  made.addEventListener("error", () => made.replaceWith(card(name, ["cannot be shown: no such file, or not a real one"], SIGNS[kind])), { once: true });
  return made;
}

function place(content) {
  const where = `${Number(content.latitude).toFixed(5)}, ${Number(content.longitude).toFixed(5)}`;
  return card(content.name || "Location", [content.address, where], "MAP");
}

function people(cards) {
  return cards.map((one) => {
    const phones = (one.phones ?? []).map((phone) => phone.phone || phone.wa_id).filter(Boolean);
    return card(one.name?.formatted_name || phones[0] || "Contact", [phones.join(", "), one.org?.company], "CARD");
  });
}

function header(found) {
  if (!found) return [];
  if (found.type === "text") return [paragraph(found.text, "head")];
  const content = found[found.type];
  if (!content) return [card(WORDS[found.type] ?? found.type, ["not given"], SIGNS[found.type] ?? "?")];
  return [found.type === "location" ? place(content) : media(found.type, content)];
}

const small = (text) => (text ? [paragraph(text, "small")] : []);

// --- what a business sends --------------------------------------------------------------------------------------

function listRows(action, act) {
  const made = make("details", "rows");
  made.append(make("summary", "tap", action.button));
  for (const section of action.sections ?? []) {
    if (section.title) made.append(make("b", "small", section.title));
    for (const { id, title, description } of section.rows ?? []) {
      const row = button(title, "row", () => act({ interactive: { type: "list_reply", list_reply: { id, title, ...(description && { description }) } } }));
      if (description) row.append(make("small", "", description));
      made.append(row);
    }
  }
  return made;
}

const ANSWERS = {
  button: ({ buttons }, act) => buttons.map(({ reply }) => button(reply.title, "tap", () => act({ interactive: { type: "button_reply", button_reply: reply } }))),
  list: (action, act) => [listRows(action, act)],
  cta_url: ({ parameters }) => [link(parameters.display_text, parameters.url)],
  location_request_message: (_, act) => [button("Send location", "tap", () => act({ location: HERE }))],
  flow: ({ parameters }, act) => [button(parameters.flow_cta, "tap", () => {
    const answer = { flow_token: parameters.flow_token ?? "unused", note: "Filled in on the sandbox phone" };
    act({ interactive: { type: "nfm_reply", nfm_reply: { name: "flow", body: "Sent", response_json: JSON.stringify(answer) } } });
  })],
  contact_request: (_, act) => [button("Share my number", "tap", () => act("number"))],
  request_contact_info: (_, act) => [button("Share my number", "tap", () => act("number"))],
  call_permission_request: (_, act) => ["accept", "reject"].map((response) => button(response === "accept" ? "Allow" : "Don't allow", "tap", () =>
    act({ interactive: { type: "call_permission_reply", call_permission_reply: { response, response_source: "user_action" } } }))),
  product: ({ product_retailer_id }) => [card(product_retailer_id, ["product"], "ITEM")],
  product_list: ({ sections }) => sections.flatMap(({ title, product_items }) => product_items.map((one) => card(one.product_retailer_id, [title], "ITEM"))),
  catalog_message: () => [card("View catalogue", [], "ITEM")],
  carousel: ({ cards }) => [carousel(cards.map((one) => {
    const { parameters, product_retailer_id } = one.action ?? {};
    return [
      ...header(one.header),
      ...(one.body ? [paragraph(one.body.text)] : []),
      ...(parameters ? [link(parameters.display_text, parameters.url)] : []),
      ...(product_retailer_id ? [card(product_retailer_id, ["product"], "ITEM")] : []),
    ];
  }))],
};

function carousel(faces) {
  const made = make("div", "carousel");
  made.tabIndex = 0; // so that the keyboard can scroll it
  made.setAttribute("role", "group");
  made.setAttribute("aria-label", `${faces.length} cards`);
  made.append(...faces.map((parts) => {
    const face = make("div", "face");
    face.append(...parts);
    return face;
  }));
  return made;
}
export const HERE = { latitude: 38.97121, longitude: -76.50164, name: "City Dock Boat Ramp", address: "1 Dock St, Annapolis" };

function asked(content, act) {
  const answers = ANSWERS[content.type];
  return [
    ...header(content.header),
    ...(content.body ? [paragraph(content.body.text)] : []),
    ...small(content.footer?.text),
    ...(answers ? answers(content.action ?? {}, act) : [paragraph(`interactive: ${content.type}`, "small")]),
  ];
}

function offer({ text, expires_at_ms }) {
  const ends = expires_at_ms ? `ends ${new Date(Number(expires_at_ms)).toLocaleString([], { dateStyle: "medium", timeStyle: "short" })}` : "";
  return card(text || "Limited offer", [ends], "%");
}

const templateButtons = (buttons, act) => (buttons ?? []).map(({ type, text, payload, url, code }) => {
  if (type === "QUICK_REPLY") return button(text, "tap", () => act({ button: { payload, text } }));
  if (type === "URL" || type === "OTP") return link(text, url);
  const words = text || type.toLowerCase().replaceAll("_", " ");
  return make("span", "tap", code ? `${words} · ${code}` : words);
});

function templated(content, act) {
  const face = ({ header: top, body, buttons }) => [...header(top), ...(body ? [paragraph(body)] : []), ...templateButtons(buttons, act)];
  return [
    ...header(content.header),
    paragraph(content.body),
    ...(content.offer ? [offer(content.offer)] : []),
    ...small(content.footer),
    ...templateButtons(content.buttons, act),
    ...(content.cards?.length ? [carousel(content.cards.map(face))] : []),
  ];
}

// --- what a customer sent -------------------------------------------------------------------------------------------

function answered(content) {
  const { type } = content;
  if (type === "button_reply" || type === "list_reply") return [paragraph(content[type].title), ...small(content[type].description)];
  if (type === "nfm_reply") return [card("Form filled in", [content.nfm_reply.name], "FORM")];
  if (type === "call_permission_reply") return [paragraph(content[type].response === "accept" ? "Calls allowed" : "Calls not allowed")];
  return [paragraph(`interactive: ${type}`)];
}

export function draw({ kind, content, direction }, act) {
  if (!content) return [paragraph(`${kind}: nothing to show`, "small")];
  if (kind === "text") return [paragraph(content.body)];
  if (kind in WORDS) return [media(kind, content), ...(content.caption ? [paragraph(content.caption)] : [])];
  if (kind === "location") return [place(content)];
  if (kind === "contacts") return people(content);
  if (kind === "interactive") return direction === "out" ? asked(content, act) : answered(content);
  if (kind === "template") return templated(content, act);
  if (kind === "button") return [paragraph(content.text)];
  if (kind === "order") return [card(`Order of ${content.product_items?.length ?? 0} items`, [content.text], "ITEM")];
  return [paragraph(`${kind}: this page cannot show it`, "small")];
}

export function summary({ kind, content }) {
  const text = content?.body?.text ?? content?.body ?? content?.caption ?? content?.text ?? content?.name ?? content?.button_reply?.title ?? content?.list_reply?.title;
  return typeof text === "string" && text ? text : kind;
}
