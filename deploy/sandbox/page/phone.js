// The customer's phone. All state lives in the sandbox (GET /sandbox/state, once a second), so a reload loses nothing;
// only the choice of customer and number is kept here. Text reaches the page as textContent and in no other way.
"use strict";

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

const element = (id) => document.getElementById(id);
const remembered = (name) => sessionStorage.getItem(`sandbox.${name}`);
const remember = (name, value) => sessionStorage.setItem(`sandbox.${name}`, value);
let state = { channels: [], customers: [], messages: [], pending: 0, faults: null };
let lastAnswer = "";
let shownChat = "";

function make(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

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

function drawChat() {
  const from = customer();
  const to = channel();
  element("avatar").textContent = to ? initials(to.workspace || "Business") : "";
  element("chat-title").textContent = to ? to.workspace || "Business" : "No business number in the story";
  element("chat-subtitle").textContent = from ? `+${to?.display_phone_number ?? ""} · you are ${nameOf(from)}` : "Add a customer to begin";
  const mine = state.messages.filter((one) => one.customer === from?.key && one.phone_number_id === to?.phone_number_id);
  const signature = JSON.stringify([from?.key, to?.phone_number_id, mine]);
  if (signature === shownChat) return;
  const before = new Set([...element("chat").querySelectorAll("[data-wamid]")].map((one) => one.dataset.wamid));
  const atEnd = element("chat").scrollHeight - element("chat").scrollTop - element("chat").clientHeight < 80;
  const bubbles = mine.map((one) => {
    const bubble = make("li", before.size && !before.has(one.wamid) ? "bubble fresh" : "bubble");
    bubble.dataset.wamid = one.wamid;
    const text = make("p", "", one.text);
    text.dir = "auto";
    const [kind, sign, meaning] = tickFor(one.delivery);
    const tick = make("span", `tick ${kind}`, sign);
    tick.title = meaning;
    tick.setAttribute("role", "img");
    tick.setAttribute("aria-label", kind === "bad" ? `${meaning}, ${sign.slice(2)}` : meaning);
    const footer = make("footer");
    footer.append(make("time", "", clock(one.sent_at)), tick);
    bubble.append(text, footer);
    return bubble;
  });
  element("chat").replaceChildren(...(bubbles.length ? bubbles : [make("li", "empty", "No messages yet. Type one below, or tap an example.")]));
  if (atEnd || !shownChat) element("chat").scrollTop = element("chat").scrollHeight;
  shownChat = signature;
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

function showFaults(faults) {
  const { claude, webhooks } = faults;
  const active = claude.mode !== "none" || webhooks.duplicate > 1 || webhooks.shuffle_ms > 0 || webhooks.drop_first > 0;
  element("faults-active").hidden = !active;
  if (element("faults").contains(document.activeElement)) return; // somebody is filling it in
  element("mode").value = claude.mode;
  element("times").value = claude.times ?? "";
  element("latency").value = claude.latency_ms ?? "";
  element("match").value = claude.match ?? "";
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
    if (answer === lastAnswer) return;
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

async function send(text) {
  const from = customer();
  const to = channel();
  if (!text.trim() || !from || !to) return false;
  try {
    const { name, wa_id, user_id } = from;
    await ask("POST", "/sandbox/messages", { from: { name, wa_id, user_id }, phone_number_id: to.phone_number_id, text });
    element("send-problem").textContent = "";
    await refresh();
    element("chat").scrollTop = element("chat").scrollHeight;
    return true;
  } catch (error) {
    element("send-problem").textContent = `Not sent: ${error.message}`;
    return false;
  }
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
  if (!(await send(text)) && !element("text").value) element("text").value = text;
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
  chip.addEventListener("click", () => send(text));
  element("examples").append(chip);
}
refresh();
setInterval(refresh, 1000);
