// The customer's phone. All state lives in the sandbox (GET /sandbox/state, once a second), so a reload loses nothing;
// only the choice of customer and number is kept here. Text reaches the page as textContent and in no other way.
"use strict";

import { HERE, draw as drawContent, make, summary } from "/page/bubbles.js";

const EXAMPLES = [
  ["en", "Hi! Where is my order 4411? It was due on Monday."],
  ["pt", "Oi, quanto custa a entrega para São Paulo?"],
  ["es", "El paquete llegó roto, es inaceptable. Quiero mi dinero hoy."],
  ["de", "Guten Tag, haben Sie die Jacke auch in Größe 42?"],
  ["fr", "Je voudrais réserver une table pour demain soir."],
  ["it", "Grazie mille, è tutto perfetto!"],
  ["ar", "أين طلبي 5521؟"],
  ["hi", "मेरा ऑर्डर अभी तक नहीं आया"],
  ["ja", "商品が壊れていました。返金してください。"],
  ["en", "I want to talk to a real person, please."],
];
const SHOWN_DELIVERIES = 25;
const EMOJI = ["👍", "❤️", "😂", "😮", "🙏"];
const TYPING_S = 25; // as long as WhatsApp shows it

const element = (id) => document.getElementById(id);
const remembered = (name) => sessionStorage.getItem(`sandbox.${name}`);
const remember = (name, value) => sessionStorage.setItem(`sandbox.${name}`, value);
let state = { channels: [], customers: [], messages: [], outbound: [], read_marks: [], pending: 0, faults: null };
let followsEnd = true;
let replyTo = null; // the message the next one answers
let lastAnswer = "";
let shownChat = "";

async function ask(method, path, body) {
  const answer = await fetch(path, {
    method,
    headers: body === undefined ? {} : { "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  const text = await answer.text();
  if (!answer.ok) throw new Error(problemIn(text, answer.status));
  return text;
}

function problemIn(text, status) {
  try {
    const { detail } = JSON.parse(text);
    return typeof detail === "string" ? detail : detail.map((one) => one.msg).join("; ");
  } catch {
    return `The sandbox answered ${status}.`;
  }
}

const initials = (name) => name.split(/\s+/).filter(Boolean).slice(0, 2).map((part) => [...part][0].toUpperCase()).join("") || "?";
const nameOf = (customer) => customer.name || customer.wa_id || customer.user_id;
const identityOf = (customer) => (customer.wa_id ? `+${customer.wa_id}` : "number not shared");
const clock = (at) => new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
const customer = () => state.customers.find((one) => one.key === remembered("customer")) ?? state.customers[0];
const channel = () => state.channels.find((one) => one.phone_number_id === remembered("channel")) ?? state.channels[0];

function drawCustomers() {
  const chosen = customer();
  element("customers").replaceChildren(...state.customers.map((one) => {
    const button = make("button", "customer");
    button.type = "button";
    button.setAttribute("aria-pressed", String(one === chosen));
    const who = make("span");
    who.append(make("b", "", nameOf(one)), make("small", "", identityOf(one)));
    const avatar = make("span", "avatar", initials(nameOf(one)));
    avatar.setAttribute("aria-hidden", "true");
    button.append(avatar, who);
    button.addEventListener("click", () => {
      remember("customer", one.key);
      draw();
      element("customers").querySelector('[aria-pressed="true"]').focus();
    });
    const item = make("li");
    item.append(button);
    return item;
  }));
}

function drawChannels() {
  const chosen = channel();
  element("channel").replaceChildren(...state.channels.map((one) => {
    const option = make("option", "", `${one.workspace || "Business"} · +${one.display_phone_number}`);
    option.value = one.phone_number_id;
    option.selected = one === chosen;
    return option;
  }));
}

function tickFor(delivery) {
  if (delivery.delivered_at) return ["two", "✓✓", "Our webhook answered 200"];
  if (delivery.attempts > 0 && delivery.next_attempt_at) {
    return ["bad", `! ${delivery.last_status ?? "no answer"}`, "Refused; being tried again"];
  }
  return ["one", "✓", "Handed to Meta"];
}

// Messages of this chat in both directions, oldest first; reactions apart, the latest of each side on each message.
function chatOf(from, to) {
  const here = (one) => one.customer === from?.key && one.phone_number_id === to?.phone_number_id;
  const all = [
    ...state.messages.filter(here).map((one) => ({ ...one, direction: "in" })),
    ...state.outbound.filter(here).map((one) => ({ ...one, direction: "out" })),
  ].sort((a, b) => a.sent_at.localeCompare(b.sent_at));
  const reactions = {};
  for (const { kind, content, direction } of all) {
    if (kind === "reaction") (reactions[content.message_id] ??= {})[direction] = content.emoji;
  }
  return [all.filter(({ kind }) => kind !== "reaction"), reactions];
}

function outboundTick({ states, failed_with }) {
  if (failed_with) return ["bad", `! ${failed_with}`, "Meta reports it as failed"];
  if (states.read) return ["read", "✓✓", states.played ? "You played it" : "You read it"];
  if (states.delivered) return ["one", "✓✓", "Delivered to you"];
  if (states.sent) return ["one", "✓", "Sent"];
  return ["one", "…", states.held ? "Held by Meta for a look at its quality" : "Accepted by Meta"];
}

function inboundTick(one, readUntil) {
  const [kind, sign, meaning] = tickFor(one.delivery);
  return kind === "two" && one.sent_at <= readUntil ? ["read", "✓✓", "The business read it"] : [kind, sign, meaning];
}

function drawActions(one) {
  const acts = make("details", "acts");
  const open = make("summary", "", "⋯");
  open.setAttribute("aria-label", "Reply or react");
  const reply = make("button", "act", "Reply");
  reply.type = "button";
  reply.addEventListener("click", () => chooseReply(one));
  acts.append(open, reply, ...EMOJI.map((emoji) => {
    const react = make("button", "act", emoji);
    react.type = "button";
    react.setAttribute("aria-label", `React with ${emoji}`);
    react.addEventListener("click", () => send({ reaction: { message_id: one.wamid, emoji } }));
    return react;
  }));
  return acts;
}

function drawBubble(one, { byId, reactions, readUntil, isFresh }) {
  const isOurs = one.direction === "in";
  const bubble = make("li", `bubble ${isOurs ? "mine" : "theirs"}${isFresh ? " fresh" : ""}`);
  bubble.dataset.wamid = one.wamid;
  if (one.reply_to) bubble.append(make("blockquote", "quote", byId[one.reply_to] ? summary(byId[one.reply_to]) : "A message that is not here any more"));
  const reply = (said) => send(said === "number" ? shareNumber() : said, one.wamid);
  bubble.append(...drawContent(one, reply));
  const [kind, sign, meaning] = isOurs ? inboundTick(one, readUntil) : outboundTick(one);
  const tick = make("span", `tick ${kind}`, sign);
  tick.title = meaning;
  tick.setAttribute("role", "img");
  tick.setAttribute("aria-label", kind === "bad" ? `${meaning}, ${sign.slice(2)}` : meaning);
  const footer = make("footer");
  footer.append(make("time", "", clock(one.sent_at)), tick);
  if (!isOurs) footer.prepend(drawActions(one));
  bubble.append(footer);
  const given = Object.values(reactions[one.wamid] ?? {}).filter(Boolean);
  if (given.length) {
    const badge = make("span", "reactions", given.join(" "));
    badge.setAttribute("aria-label", `Reactions: ${given.join(" ")}`);
    bubble.append(badge);
  }
  return bubble;
}

const shareNumber = () => ({ contacts: [{ name: { formatted_name: nameOf(customer()) }, phones: [{ phone: `+${customer().wa_id ?? "12025550100"}` }], origin: "contact_request" }] });

function isTyping(to, chat) {
  const mark = state.read_marks.find((one) => one.phone_number_id === to?.phone_number_id && one.typing);
  if (!mark || Date.now() / 1000 - mark.at > TYPING_S) return false;
  const said = chat.findLast(({ direction }) => direction === "out");
  return chat.some(({ wamid }) => wamid === mark.message_id) && !(said && Date.parse(said.sent_at) / 1000 > mark.at);
}

function drawChat() {
  const from = customer();
  const to = channel();
  const [chat, reactions] = chatOf(from, to);
  element("avatar").textContent = to ? initials(to.workspace || "Business") : "";
  element("chat-title").textContent = to ? to.workspace || "Business" : "No business number in the story";
  const subtitle = from ? `+${to?.display_phone_number ?? ""} · you are ${nameOf(from)}` : "Add a customer to begin";
  element("chat-subtitle").textContent = isTyping(to, chat) ? "typing…" : subtitle;
  const marked = new Set(state.read_marks.map((one) => one.message_id));
  const readUntil = chat.findLast((one) => marked.has(one.wamid))?.sent_at ?? "";
  const signature = JSON.stringify([from?.key, to?.phone_number_id, chat, reactions, readUntil]);
  if (signature === shownChat) return;
  const before = new Set([...element("chat").querySelectorAll("[data-wamid]")].map((one) => one.dataset.wamid));
  const atEnd = followsEnd;
  const byId = Object.fromEntries(chat.map((one) => [one.wamid, one]));
  // A bubble that did not change stays as it is: a list opened in it stays open, a sound goes on.
  const kept = new Map([...element("chat").children].map((one) => [one.dataset.seen, one]));
  const bubbles = chat.map((one) => {
    const seen = JSON.stringify([one, reactions[one.wamid], one.direction === "in" && one.sent_at <= readUntil, Boolean(byId[one.reply_to])]);
    if (kept.has(seen)) return kept.get(seen);
    const bubble = drawBubble(one, { byId, reactions, readUntil, isFresh: before.size && !before.has(one.wamid) });
    bubble.dataset.seen = seen;
    return bubble;
  });
  element("chat").replaceChildren(...(bubbles.length ? bubbles : [make("li", "empty", "No messages yet. Type one below, or tap an example.")]));
  if (atEnd || !shownChat) element("chat").scrollTop = element("chat").scrollHeight;
  shownChat = signature;
}

function chooseReply(one) {
  replyTo = one;
  element("replying").hidden = !one;
  element("replying-text").textContent = one ? summary(one) : "";
  if (one) element("text").focus();
}

function drawDeliveries() {
  const newest = state.messages.slice(-SHOWN_DELIVERIES).reverse();
  const answered = newest.find((one) => one.delivery.attempts > 0)?.delivery;
  element("fact-pending").textContent = String(state.pending);
  element("fact-status").textContent = answered ? String(answered.last_status ?? "no answer") : "none";
  element("fact-status").classList.toggle("bad", Boolean(answered) && answered.last_status !== 200);
  element("fact-latency").textContent = answered?.latency_ms == null ? "–" : `${Math.round(answered.latency_ms)} ms`;
  element("no-deliveries").hidden = newest.length > 0;
  element("deliveries").replaceChildren(...newest.map(({ wamid, delivery }) => {
    const row = make("li", "delivery");
    const id = make("code", "", wamid.slice(0, 12) + "…" + wamid.slice(-10));
    id.title = wamid;
    const status = make("span", delivery.last_status === 200 ? "good" : "worse", String(delivery.last_status ?? delivery.last_error ?? "on its way"));
    const took = delivery.latency_ms == null ? "" : ` · ${Math.round(delivery.latency_ms)} ms`;
    const tries = delivery.attempts === 1 ? "1 attempt" : `${delivery.attempts} attempts`;
    row.append(id, status, make("span", "hint", `${clock(delivery.created_at)} · ${tries}${took}`));
    return row;
  }));
}

// The choices of this page stand for one fault each; anything else was set over HTTP and stays as it is.
const graphFault = (choice, times) => {
  const [code, later] = choice.split(" ");
  return { ...(Number(code) ? { mode: "error", code: Number(code), by: later ? "webhook" : "answer" } : { mode: code }), times };
};

function graphChoice(faults) {
  if (!faults.length) return "none";
  const [{ mode, code, by, http, skip, latency_ms, for: only }] = faults;
  const choice = mode === "error" ? `${code}${by === "webhook" ? " later" : ""}` : mode;
  const isPlain = faults.length === 1 && http === null && !skip && !latency_ms && !only.path && !only.recipient;
  return isPlain && [...element("graph").options].some(({ value }) => value === choice) ? choice : "other";
}

function graphFaults() {
  const choice = element("graph").value;
  if (choice === "none") return [];
  return choice === "other" ? state.faults.graph : [graphFault(choice, numberOrNull("graph-times"))];
}

function showFaults(faults) {
  const { claude, webhooks } = faults;
  const active = faults.graph.length > 0 || claude.mode !== "none" || webhooks.duplicate > 1 || webhooks.shuffle_ms > 0 || webhooks.drop_first > 0;
  element("faults-active").hidden = !active;
  if (element("faults").contains(document.activeElement)) return; // somebody is filling it in
  element("mode").value = claude.mode;
  element("times").value = claude.times ?? "";
  element("latency").value = claude.latency_ms ?? "";
  element("match").value = claude.match ?? "";
  element("graph").value = graphChoice(faults.graph);
  element("graph-times").value = faults.graph[0]?.times ?? "";
  element("duplicate").value = webhooks.duplicate;
  element("concurrent").checked = webhooks.concurrent_copies;
  element("shuffle").value = webhooks.shuffle_ms;
  element("drop").value = webhooks.drop_first;
}

function draw() {
  drawCustomers();
  drawChannels();
  drawChat();
  drawDeliveries();
}

async function refresh() {
  try {
    const answer = await ask("GET", "/sandbox/state");
    element("connection").textContent = "";
    if (answer === lastAnswer) {
      drawChat(); // "typing…" ends by itself
      return;
    }
    const known = JSON.stringify([state.customers, state.channels]);
    state = JSON.parse(answer);
    lastAnswer = answer;
    // The lists are drawn again only when they changed, so that focus and open menus stay.
    if (known !== JSON.stringify([state.customers, state.channels])) draw();
    drawChat();
    drawDeliveries();
    showFaults(state.faults);
  } catch {
    element("connection").textContent = "The sandbox does not answer; trying again.";
  }
}

async function send(said, to_wamid) {
  const from = customer();
  const to = channel();
  if (!from || !to) return false;
  const answers = to_wamid ?? (said.reaction ? null : replyTo?.wamid);
  try {
    const { name, wa_id, user_id } = from;
    await ask("POST", "/sandbox/messages", { from: { name, wa_id, user_id }, phone_number_id: to.phone_number_id, ...said, ...(answers && { reply_to: answers }) });
    element("send-problem").textContent = "";
    if (!said.reaction) chooseReply(null);
    await refresh();
    element("chat").scrollTop = element("chat").scrollHeight;
    return true;
  } catch (error) {
    element("send-problem").textContent = `Not sent: ${error.message}`;
    return false;
  }
}

async function sendFile(file) {
  const query = new URLSearchParams({ phone_number_id: channel().phone_number_id, name: file.name });
  const answer = await fetch(`/sandbox/media?${query}`, { method: "POST", headers: { "Content-Type": file.type || "application/octet-stream" }, body: file });
  const text = await answer.text();
  if (!answer.ok) {
    element("send-problem").textContent = `Not sent: ${problemIn(text, answer.status)}`;
    return;
  }
  const { id, kind } = JSON.parse(text);
  await send({ media: { id, filename: file.name, voice: kind === "audio" && /\.(ogg|opus)$/i.test(file.name) } });
}

const numberOrNull = (id) => (element(id).value === "" ? null : Number(element(id).value));

async function putFaults(faults, said) {
  try {
    state.faults = JSON.parse(await ask("PUT", "/sandbox/faults", faults));
    document.activeElement?.blur();
    showFaults(state.faults);
    element("faults-said").textContent = said;
  } catch (error) {
    element("faults-said").textContent = `Not applied: ${error.message}`;
  }
}

function fitComposer() {
  const text = element("text");
  text.style.height = "auto"; // set through the object model, which the policy allows
  text.style.height = `${Math.min(text.scrollHeight + 2, 140)}px`;
}

element("composer").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = element("text").value;
  element("text").value = "";
  fitComposer();
  if (text.trim() && !(await send({ text })) && !element("text").value) element("text").value = text;
  element("text").focus();
});
element("text").addEventListener("input", fitComposer);
element("text").addEventListener("keydown", (event) => {
  // While an input method composes (Japanese, Hindi …) Enter picks a candidate.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    element("composer").requestSubmit();
  }
});
element("file").addEventListener("change", async (event) => {
  for (const file of event.target.files) await sendFile(file);
  event.target.value = "";
  element("attach").open = false;
});
element("send-location").addEventListener("click", () => {
  element("attach").open = false;
  send({ location: HERE });
});
element("send-contact").addEventListener("click", () => {
  element("attach").open = false;
  send({ contacts: [{ name: { formatted_name: "Repair desk", first_name: "Repair" }, phones: [{ phone: "+1 202-555-0188", wa_id: "12025550188", type: "WORK" }], origin: "other" }] });
});
// Pictures make the chat longer once they are there: who was at the end stays at the end.
const stayAtEnd = () => requestAnimationFrame(() => {
  if (followsEnd) element("chat").scrollTop = element("chat").scrollHeight;
});
for (const name of ["load", "error"]) element("chat").addEventListener(name, stayAtEnd, true);
element("chat").addEventListener("scroll", ({ target }) => {
  followsEnd = target.scrollHeight - target.scrollTop - target.clientHeight < 80;
});
element("stop-replying").addEventListener("click", () => chooseReply(null));
element("channel").addEventListener("change", (event) => {
  remember("channel", event.target.value);
  drawChat();
});
element("add-customer").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  try {
    const wa_id = form.elements.wa_id.value.trim() || null;
    const made = JSON.parse(await ask("POST", "/sandbox/customers", { name: form.elements.name.value.trim(), wa_id }));
    remember("customer", made.key);
    form.reset();
    form.closest("details").open = false;
    element("add-problem").textContent = "";
    await refresh();
    element("text").focus();
  } catch (error) {
    element("add-problem").textContent = error.message;
  }
});
element("faults").addEventListener("submit", (event) => {
  event.preventDefault();
  putFaults({
    claude: { mode: element("mode").value, times: numberOrNull("times"), latency_ms: numberOrNull("latency"), match: element("match").value || null },
    webhooks: {
      duplicate: Number(element("duplicate").value),
      concurrent_copies: element("concurrent").checked,
      shuffle_ms: Number(element("shuffle").value),
      drop_first: Number(element("drop").value),
    },
    graph: graphFaults(),
    record_prompts: state.faults?.record_prompts ?? null,
    strict_schema: state.faults?.strict_schema ?? false,
  }, "Applied.");
});
element("reset").addEventListener("click", () => putFaults({}, "All faults are off."));

for (const [language, text] of EXAMPLES) {
  const chip = make("button", "chip", text);
  chip.type = "button";
  chip.lang = language;
  chip.dir = "auto";
  chip.title = text;
  chip.addEventListener("click", () => send({ text }));
  element("examples").append(chip);
}
refresh();
setInterval(refresh, 1000);
