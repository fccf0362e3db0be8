// The page of the inbox. Whatever comes out of a mail is put in as text, never as markup; the HTML of a mail
// is shown only in a sandboxed frame, under a policy of its own.

const PAGE_SIZE = 100;
const REFRESH_MS = 120; // a burst of mails refreshes the list this often, not once a mail
const RECONNECT_MS = 2000;
const SOURCE_CHARS = 500_000;
const TABS = ["html", "text", "headers", "source", "attachments"];

const $ = (id) => document.getElementById(id);
const state = {
  messages: [], total: 0, exhausted: false, filter: new URLSearchParams(),
  selected: null, detail: null, tab: "html", unread: new Set(), known: new Set(), loaded: false,
};

// Small tools

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

function copyButton(text, label) {
  const button = make("button", { type: "button", className: "copy", title: label }, icon("copy"));
  button.setAttribute("aria-label", label);
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.replaceChildren(icon("check"));
    $("news").textContent = "Copied";
    setTimeout(() => button.replaceChildren(icon("copy")), 1500);
  });
  return button;
}

function bytes(size) {
  if (size < 1000) return `${size} B`;
  if (size < 1e6) return `${(size / 1e3).toFixed(size < 1e4 ? 1 : 0)} kB`;
  return `${(size / 1e6).toFixed(1)} MB`;
}

function when(at) {
  const date = new Date(at);
  const seconds = (Date.now() - date) / 1000;
  if (seconds < 45) return "now";
  if (seconds < 3600) return `${Math.max(1, Math.round(seconds / 60))} min`;
  if (seconds < 86_400) return `${Math.round(seconds / 3600)} h`;
  const year = date.getFullYear() === new Date().getFullYear() ? undefined : "numeric";
  return date.toLocaleDateString(undefined, { day: "numeric", month: "short", year });
}

const moment = (at) => new Date(at).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
const bare = (address) => (/<([^<>]*)>\s*$/.exec(address)?.[1] ?? address).trim().toLowerCase();
const nameOf = (address) => address.replace(/\s*<[^<>]*>\s*$/, "").replace(/^"|"$/g, "") || bare(address);

async function ask(path, options) {
  const response = await fetch(path, options);
  if (!response.ok) throw Object.assign(new Error(path), { status: response.status });
  return response.status === 204 ? null : response.json();
}

// The list

function listUrl(extra = {}) {
  const query = new URLSearchParams({ ...Object.fromEntries(state.filter), limit: PAGE_SIZE, ...extra });
  return `/api/messages?${query}`;
}

let refreshTimer = null;
let refreshing = false;
let refreshAgain = false;

function refreshSoon() {
  refreshTimer ??= setTimeout(refresh, REFRESH_MS);
}

async function refresh() {
  clearTimeout(refreshTimer);
  refreshTimer = null;
  refreshAgain = refreshing;
  if (refreshing) return;
  refreshing = true;
  const filter = state.filter;
  try {
    const page = await ask(listUrl());
    if (filter === state.filter) merge(page);
  } catch {
    refreshAgain = false; // the stream is lost too, and refreshes when it is back
  } finally {
    refreshing = false;
  }
  if (refreshAgain) refreshSoon();
}

function merge(page) {
  const oldest = page.messages.at(-1)?.id ?? 0;
  const newestShown = state.messages[0]?.id ?? 0;
  const full = page.messages.length === PAGE_SIZE;
  // Without an overlap there may be mails between this page and the rows below it: those are loaded again.
  const below = full && oldest <= newestShown ? state.messages.filter((one) => one.id < oldest) : [];
  state.messages = [...page.messages, ...below];
  state.exhausted = !full;
  state.total = page.total;
  state.loaded = true;
  showList();
}

let loadingOlder = false;

async function loadOlder() {
  if (loadingOlder || state.exhausted || !state.messages.length) return;
  loadingOlder = true;
  const filter = state.filter;
  try {
    const page = await ask(listUrl({ before: state.messages.at(-1).id }));
    if (filter !== state.filter) return;
    const oldest = state.messages.at(-1).id;
    state.messages.push(...page.messages.filter((one) => one.id < oldest));
    state.exhausted = page.messages.length < PAGE_SIZE;
    showList();
  } catch {
    state.exhausted = false; // scrolling tries again
  } finally {
    loadingOlder = false;
  }
}

function showList() {
  const rows = new Map([...$("list").children].map((row) => [Number(row.dataset.id), row]));
  const wanted = state.messages.map((message) => fill(rows.get(message.id) ?? newRow(message), message));
  const wantedSet = new Set(wanted);
  for (const row of rows.values()) if (!wantedSet.has(row)) row.remove();
  let place = $("list").firstElementChild;
  for (const row of wanted) {
    if (row === place) place = place.nextElementSibling;
    else $("list").insertBefore(row, place);
  }
  showSelection();
  showSurroundings();
}

function newRow(message) {
  const row = $("row").content.firstElementChild.cloneNode(true);
  const author = nameOf(message.from);
  row.id = `message-${message.id}`;
  row.dataset.id = message.id;
  row.querySelector(".face").textContent = [...author][0]?.toUpperCase() ?? "?";
  row.querySelector(".face").dataset.hue = [...bare(message.from)].reduce((sum, c) => sum + c.codePointAt(0), 0) % 8;
  row.querySelector(".from").textContent = author || "(empty sender)";
  row.querySelector("time").dateTime = message.at;
  row.querySelector("time").title = moment(message.at);
  row.querySelector(".about").textContent = message.subject || "(no subject)";
  row.querySelector(".about").classList.toggle("none", !message.subject);
  const others = message.to.length > 1 ? ` +${message.to.length - 1}` : "";
  row.querySelector(".to").textContent = `to ${message.to[0]}${others}`;
  if (state.known.size && !state.known.has(message.id) && state.unread.has(message.id)) row.classList.add("new");
  state.known.add(message.id);
  return row;
}

function fill(row, message) {
  row.classList.toggle("unread", state.unread.has(message.id));
  row.querySelector("time").textContent = when(message.at);
  row.querySelector(".ref").textContent = message.client_ref ?? "";
  row.querySelector(".ref").title = message.client_ref ?? "";
  return row;
}

function showSelection() {
  const list = $("list");
  for (const row of list.querySelectorAll('[aria-selected="true"]')) row.setAttribute("aria-selected", "false");
  const row = state.selected && $(`message-${state.selected}`);
  row?.setAttribute("aria-selected", "true");
  if (row) list.setAttribute("aria-activedescendant", row.id);
  else list.removeAttribute("aria-activedescendant");
}

function showSurroundings() {
  const filtered = state.filter.size > 0;
  const none = state.loaded && !state.messages.length;
  const number = state.total.toLocaleString();
  $("count").textContent = none ? "" : `${number} ${state.total === 1 ? "message" : "messages"}${filtered ? " found" : ""}`;
  $("nothing").hidden = !(none && filtered);
  $("clear").disabled = none && !filtered;
  document.body.classList.toggle("empty", none && !filtered && !state.selected);
  showReader();
  showTitle();
}

function showTitle() {
  document.title = `${state.unread.size ? `(${state.unread.size}) ` : ""}Postroom inbox`;
}

// The message

function showReader() {
  const missing = state.selected && state.detail === "gone";
  const shown = state.selected && state.detail && !missing;
  $("message").hidden = !shown;
  $("gone").hidden = !missing;
  const idle = !state.selected && state.loaded;
  const none = !state.messages.length && !state.filter.size;
  $("empty").hidden = !(idle && none);
  $("unselected").hidden = !(idle && !none);
  document.body.dataset.view = state.selected ? "message" : "list";
}

async function select(id) {
  if (id === state.selected) return;
  state.selected = id;
  if (id === null) {
    state.detail = null;
    showSelection();
    showSurroundings();
    return;
  }
  state.unread.delete(id);
  $(`message-${id}`)?.classList.remove("unread");
  showSelection();
  showTitle();
  $(`message-${id}`)?.scrollIntoView({ block: "nearest" });
  let detail;
  try {
    detail = await ask(`/api/messages/${id}`);
  } catch (error) {
    if (error.status !== 404) return;
    detail = "gone";
  }
  if (id !== state.selected) return; // another one was chosen meanwhile
  state.detail = detail;
  if (detail !== "gone") showMessage(detail);
  showReader();
}

function showMessage(detail) {
  $("subject").textContent = detail.subject || "(no subject)";
  $("subject").classList.toggle("subject-none", !detail.subject);
  $("download").href = detail.raw_url;
  $("facts").replaceChildren(...facts(detail));
  $("attachment-count").textContent = detail.attachments.length || "";
  $("tab-html").disabled = detail.html === null;
  $("tab-text").disabled = detail.text === null;
  $("tab-attachments").disabled = !detail.attachments.length;
  for (const id of ["frame", "text", "headers", "source", "attachments"]) $(id).replaceChildren();
  for (const name of TABS) $(`panel-${name}`).scrollTop = 0;
  showTab(usableTab());
}

function facts(detail) {
  const named = new Set([...detail.to, ...detail.cc].map(bare));
  const blind = detail.envelope.recipients.filter((one) => !named.has(one.toLowerCase()));
  const rows = [["From", people([detail.from || "(none)"])]];
  if (detail.to.length) rows.push(["To", people(detail.to)]);
  if (detail.cc.length) rows.push(["Cc", people(detail.cc)]);
  if (blind.length) rows.push([detail.to.length ? "Bcc" : "Recipients", people(blind)]);
  if (bare(detail.from) !== detail.envelope.sender.toLowerCase()) {
    rows.push(["Sender", people([detail.envelope.sender || "empty, as for bounces"])]);
  }
  const size = make("small", { textContent: bytes(detail.size) });
  rows.push(["Received", make("dd", {}, make("time", { dateTime: detail.at, textContent: moment(detail.at) }), size)]);
  const names = [];
  if (detail.client_ref) names.push(chip(detail.client_ref, "Copy the client_ref"));
  if (detail.postroom_id) names.push(chip(detail.postroom_id, "Copy Postroom's id of the message"));
  if (names.length) rows.push([detail.client_ref ? "Reference" : "Message", make("dd", { className: "names" }, ...names)]);
  return rows.flatMap(([name, value]) => [make("dt", { textContent: name }), value]);
}

function people(addresses) {
  return make("dd", { className: "names" }, ...addresses.map((one, index) =>
    make("span", { textContent: index < addresses.length - 1 ? `${one},` : one })));
}

function chip(text, label) {
  return make("span", { className: "chip" }, make("code", { textContent: text }), copyButton(text, label));
}

function usableTab() {
  return [state.tab, "html", "text", "source"].find((name) => !$(`tab-${name}`).disabled);
}

function showTab(shown) {
  for (const name of TABS) {
    $(`tab-${name}`).setAttribute("aria-selected", String(name === shown));
    $(`tab-${name}`).tabIndex = name === shown ? 0 : -1;
    $(`panel-${name}`).hidden = name !== shown;
  }
  $("widths").hidden = shown !== "html";
  ({ html: showHtml, text: showText, headers: showHeaders, source: showSource, attachments: showAttachments })[shown](state.detail);
}

function showHtml(detail, remote = false) {
  if ($("frame").hasChildNodes() && !remote) return;
  const frame = make("iframe", { title: "The mail's HTML", referrerPolicy: "no-referrer" });
  frame.setAttribute("sandbox", "allow-popups allow-popups-to-escape-sandbox");
  frame.src = detail.html_url + (remote ? "?images=remote" : "");
  $("frame").replaceChildren(frame);
  $("remote").hidden = remote || !/(src|srcset|background)\s*=\s*["']?\s*https?:|url\(\s*["']?https?:/i.test(detail.html);
}

function showText(detail) {
  if ($("text").hasChildNodes()) return;
  for (const piece of detail.text.split(/(https?:\/\/[^\s<>"]+[^\s<>".,;:!?)\]])/)) {
    const link = /^https?:\/\//.test(piece);
    $("text").append(link ? make("a", { href: piece, textContent: piece, target: "_blank", rel: "noopener noreferrer" }) : piece);
  }
}

function showHeaders(detail) {
  $("headers").replaceChildren(...detail.headers.map(([name, value]) =>
    make("tr", {}, make("th", { scope: "row", textContent: name }), make("td", { textContent: value }))));
}

async function showSource(detail) {
  if ($("source").hasChildNodes()) return;
  const stop = new AbortController();
  const response = await fetch(detail.raw_url, { signal: stop.signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let source = "";
  for (let part = await reader.read(); !part.done && source.length < SOURCE_CHARS; part = await reader.read()) source += part.value;
  const cut = source.length >= SOURCE_CHARS;
  if (cut) reader.cancel().catch(() => {});
  if (detail !== state.detail) return;
  const rest = cut ? `\n\n… the rest is in the download (${bytes(detail.size)} in all)` : "";
  $("source").textContent = source.slice(0, SOURCE_CHARS) + rest;
}

function showAttachments(detail) {
  $("attachments").replaceChildren(...detail.attachments.map((one) => {
    const image = /^image\/(png|jpeg|gif|webp|avif|svg\+xml)$/.test(one.content_type);
    const picture = image ? make("img", { src: one.url, alt: "", loading: "lazy" }) : icon("file");
    const words = make("span", { className: "words" },
      make("span", { className: "about", textContent: one.name, title: one.name }),
      make("span", { className: "to", textContent: `${one.content_type} · ${bytes(one.size)}${one.cid ? " · inline" : ""}` }));
    return make("li", {}, make("a", { href: one.url, download: one.name }, make("span", { className: "thumb" }, picture), words));
  }));
}

// Moving around

function open(id) {
  const place = id === null ? "#/" : `#/messages/${id}`;
  // Walking through the list is one step back, not one a message.
  if (state.selected === null) history.pushState(null, "", place);
  else history.replaceState(null, "", place);
  select(id);
}

function follow() {
  const id = /^#\/messages\/(\d+)$/.exec(location.hash)?.[1];
  select(id === undefined ? null : Number(id));
}

function move(step) {
  if (!state.messages.length) return;
  const at = state.messages.findIndex((one) => one.id === state.selected);
  const next = at < 0 ? 0 : Math.min(Math.max(at + step, 0), state.messages.length - 1);
  open(state.messages[next].id);
  if (next > state.messages.length - 10) loadOlder();
}

function applyFilter() {
  const text = $("filter").value.trim();
  const [, field, value] = /^(to|subject|ref):\s*(.*)$/i.exec(text) ?? [null, "q", text];
  const name = { ref: "client_ref" }[field.toLowerCase()] ?? field.toLowerCase();
  state.filter = new URLSearchParams(value ? { [name]: value } : {});
  $("scroll").scrollTop = 0;
  state.messages = [];
  refresh();
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || $("confirm").open) return;
  const typing = event.target.matches("input");
  if (event.key === "Escape") {
    if (typing) { $("filter").value = ""; applyFilter(); $("list").focus(); }
    else if (state.selected !== null) open(null);
    return;
  }
  if (typing) {
    if (event.key === "ArrowDown" || event.key === "Enter") { event.preventDefault(); $("list").focus(); move(state.selected ? 0 : 1); }
    return;
  }
  const inTabs = event.target.matches('[role="tab"], [role="tabpanel"]');
  const step = { j: 1, k: -1, ...(inTabs ? {} : { ArrowDown: 1, ArrowUp: -1 }) }[event.key];
  const tab = TABS[Number(event.key) - 1];
  if (step) move(step);
  else if (event.key === "/") $("filter").focus();
  else if (tab && state.detail?.id && !$(`tab-${tab}`).disabled) chooseTab(tab);
  else return;
  event.preventDefault();
}

function chooseTab(name) {
  state.tab = name;
  showTab(name);
}

function pressedInTabs(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const usable = TABS.filter((name) => !$(`tab-${name}`).disabled);
  const at = usable.indexOf(event.target.dataset.tab);
  const name = usable[(at + step + usable.length) % usable.length];
  chooseTab(name);
  $(`tab-${name}`).focus();
}

// Deleting

async function deleteSelected() {
  const id = state.selected;
  const at = state.messages.findIndex((one) => one.id === id);
  const next = state.messages[at + 1] ?? state.messages[at - 1] ?? null;
  await ask(`/api/messages/${id}`, { method: "DELETE" }).catch(() => {});
  forget(id);
  open(next && next.id);
}

function forget(id) {
  const before = state.messages.length;
  state.messages = state.messages.filter((one) => one.id !== id);
  if (state.messages.length < before) state.total -= 1;
  state.unread.delete(id);
  showList();
}

function forgetAll() {
  Object.assign(state, { messages: [], total: 0, exhausted: true });
  state.unread.clear();
  history.replaceState(null, "", "#/");
  select(null);
  showList();
}

function confirmClear() {
  const filtered = state.filter.size > 0 ? ", with what the filter hides," : "";
  $("confirm-text").textContent = `Everything in this inbox${filtered} will be gone, and cannot be brought back.`;
  $("confirm").showModal();
}

async function clear() {
  $("confirm").close();
  await ask("/api/messages", { method: "DELETE" });
  forgetAll();
}

// Staying connected

let events = null;

function connect() {
  events = new EventSource("/api/events");
  events.addEventListener("open", () => { setLive("live"); refresh(); });
  events.addEventListener("error", (event) => {
    setLive("lost");
    if (event.target.readyState === EventSource.CLOSED) setTimeout(connect, RECONNECT_MS); // the browser gave up
  });
  events.addEventListener("message", (event) => {
    const message = JSON.parse(event.data);
    state.unread.add(message.id);
    $("news").textContent = `New mail: ${message.subject || "no subject"}`;
    showTitle();
    refreshSoon();
  });
  events.addEventListener("deleted", (event) => forget(JSON.parse(event.data).id));
  events.addEventListener("cleared", forgetAll);
}

function setLive(live) {
  $("live").dataset.state = live;
  $("live-text").textContent = live === "live" ? "Live" : "Disconnected";
  $("banner").hidden = live !== "lost";
}

async function introduce() {
  const info = await ask("/api/info").catch(() => null);
  if (!info) return;
  $("smtp").textContent = info.smtp;
  const fields = [
    '{"client_ref": "hello-1", "agent": "orders"',
    '       "to": [{"address": "ada@example.com"}]',
    '       "content": {"subject": "Hello", "text": "It works."}}',
  ];
  const body = fields.join(",\n");
  const examples = {
    "with-cli": "postroom send",
    "with-api": [
      `curl ${info.api_url}/v1/messages \\`,
      '  -H "Authorization: Bearer $TOKEN" \\',
      '  -H "Content-Type: application/json" \\',
      `  -d '${body}'`,
    ].join("\n"),
    "with-smtp": [
      "printf 'Subject: Hello\\r\\n\\r\\nIt works.\\r\\n' |",
      `  curl smtp://${info.smtp} -T - \\`,
      "    --mail-from me@example.com --mail-rcpt ada@example.com",
    ].join("\n"),
  };
  for (const [id, text] of Object.entries(examples)) {
    $(id).textContent = text;
    $(id).after(copyButton(text, "Copy"));
  }
}

let typingTimer;
$("filter").addEventListener("input", () => { clearTimeout(typingTimer); typingTimer = setTimeout(applyFilter, 120); });
$("list").addEventListener("click", (event) => {
  const row = event.target.closest("li");
  if (row) open(Number(row.dataset.id));
});
$("tabs").addEventListener("click", (event) => {
  const tab = event.target.closest("[role=tab]");
  if (tab) chooseTab(tab.dataset.tab);
});
$("tabs").addEventListener("keydown", pressedInTabs);
$("widths").addEventListener("click", (event) => {
  const chosen = event.target.closest("button");
  if (!chosen) return;
  for (const button of $("widths").children) button.setAttribute("aria-pressed", String(button === chosen));
  $("frame").dataset.width = chosen.dataset.width;
});
$("load-remote").addEventListener("click", () => showHtml(state.detail, true));
$("back").addEventListener("click", () => open(null));
$("delete").addEventListener("click", deleteSelected);
$("clear").addEventListener("click", confirmClear);
$("confirm-no").addEventListener("click", () => $("confirm").close());
$("confirm-yes").addEventListener("click", clear);
document.addEventListener("keydown", pressed);
addEventListener("popstate", follow);
// A browser opens six connections to a place; a page kept in its history must not hold one of them.
addEventListener("pagehide", () => events.close());
addEventListener("pageshow", (event) => event.persisted && connect());
new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && loadOlder(), { root: $("scroll"), rootMargin: "600px" }).observe($("older"));
setInterval(() => { for (const time of $("list").querySelectorAll("time")) time.textContent = when(time.dateTime); }, 30_000);

introduce();
connect();
follow();
