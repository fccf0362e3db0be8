// The page asks for what is there, shows it, and asks again for what is newer than that.
const byId = (id) => document.getElementById(id);
const copy = (id) => byId(id).content.firstElementChild.cloneNode(true);
const WIDTHS = { phone: 375, desktop: 1024 };
const shown = new Map(); // by name: what is on the page, as it was told

async function follow() {
  let turn = null;
  for (;;) {
    try {
      const answer = await fetch(turn === null ? "/api/templates" : `/api/templates?seen=${turn}`, { cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      const found = await answer.json();
      if (found.turn !== turn) show(found);
      turn = found.turn;
      tell("live", "Live");
    } catch {
      tell("lost", "Stopped: run the command again");
      turn = null;
      await new Promise((go) => setTimeout(go, 1000));
    }
  }
}

function tell(state, words) {
  byId("live").dataset.state = state;
  byId("live").textContent = words;
}

function show({ folder, templates }) {
  byId("folder").textContent = folder;
  byId("list").replaceChildren(...templates.map(entry));
  const kept = new Map([...byId("main").querySelectorAll(".template")].map((section) => [section.id, section]));
  const sections = templates.map((template) => {
    const told = JSON.stringify(template);
    const section = kept.get(`t-${template.name}`);
    if (section && shown.get(template.name) === told) return section;
    shown.set(template.name, told);
    return section ? refreshed(section, template) : refreshed(blank(template.name), template);
  });
  const main = byId("main");
  // What stays is not moved: a frame that leaves the document loads anew, and the place on the page is lost.
  for (const [id, section] of kept) if (!sections.includes(section)) section.remove();
  sections.forEach((section, index) => {
    if (main.children[index] !== section) main.insertBefore(section, main.children[index] ?? null);
  });
  main.querySelector("p.none")?.remove();
  if (!templates.length) main.append(Object.assign(document.createElement("p"), { className: "none", textContent: "No templates here yet: each is a folder of its own, with a template.toml." }));
}

function entry({ name, showings, faults }) {
  const link = Object.assign(document.createElement("a"), { href: `#t-${name}`, textContent: name });
  const locales = [...new Set(showings.map((showing) => showing.locale))].join(" ");
  link.append(Object.assign(document.createElement("small"), { textContent: faults.length ? `${faults.length} fault${faults.length > 1 ? "s" : ""}` : locales }));
  link.classList.toggle("faulty", faults.length > 0);
  return link;
}

function blank(name) {
  const section = copy("template");
  section.id = `t-${name}`;
  return section;
}

function refreshed(section, template) {
  section.classList.toggle("faulty", template.faults.length > 0);
  section.querySelector("h2").textContent = template.name;
  const version = Object.assign(document.createElement("code"), { textContent: template.version ?? "" });
  section.querySelector(".about").replaceChildren(version, [template.description, template.owner && `(${template.owner})`].filter(Boolean).join(" "));
  section.querySelector(".faults").replaceChildren(...template.faults.map(({ file, line, message }) => {
    const item = document.createElement("li");
    item.append(Object.assign(document.createElement("code"), { textContent: `${file}:${line}` }), message);
    return item;
  }));
  const place = section.querySelector(".showings");
  template.showings.forEach((showing, number) => {
    const article = place.children[number] ?? place.appendChild(copy("showing"));
    article.querySelector(".locale").textContent = showing.locale;
    article.querySelector(".example").textContent = showing.example;
    article.querySelector(".subject").textContent = showing.subject;
    article.querySelector("pre").textContent = showing.text ?? "";
    article.querySelector("details").hidden = showing.text === null;
    article.querySelector(".frames").hidden = !showing.html;
    for (const size of Object.keys(WIDTHS)) {
      frame(article.querySelector(`.${size} .screen`), size, showing.html ? `/mail/${template.name}/${number}?v=${template.version}` : null, `${template.name}, ${showing.locale}, ${size}`);
    }
  });
  while (place.children.length > template.showings.length) place.lastElementChild.remove();
  return section;
}

function frame(screen, size, source, title) {
  let mail = screen.querySelector("iframe");
  if (!mail) {
    mail = document.createElement("iframe");
    mail.sandbox = "allow-same-origin"; // measured from here; it runs no script
    mail.addEventListener("load", () => fit(screen));
    mail.height = 200;
    screen.append(mail);
  }
  mail.title = title;
  mail.dataset.size = size;
  if (source && mail.getAttribute("src") !== source) mail.src = source;
  paint(screen);
}

// Shows a mail at its whole height, and made smaller where there is less room than it is wide.
function fit(screen) {
  const mail = screen.querySelector("iframe");
  if (!mail.getAttribute("src")) return;
  mail.height = 1; // a page is never shorter than its frame
  const height = mail.contentDocument?.documentElement?.scrollHeight ?? 1;
  const scale = Math.min(1, screen.clientWidth / WIDTHS[mail.dataset.size]);
  mail.height = height;
  mail.style.transform = `scale(${scale})`;
  screen.style.height = `${Math.ceil(height * scale)}px`;
}

function paint(screen) {
  const scheme = byId("scheme").value;
  screen.dataset.scheme = scheme;
  screen.querySelector("iframe").style.colorScheme = scheme;
}

const screens = () => document.querySelectorAll(".screen:has(iframe)");
byId("scheme").value = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
byId("scheme").addEventListener("change", () => screens().forEach(paint));
addEventListener("resize", () => screens().forEach(fit));
follow();
