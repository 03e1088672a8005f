// The page's own small behaviours. Everything works without this file; it only makes things quicker and kinder.
const root = document.documentElement;
const $ = (selector, from = document) => from.querySelector(selector);
const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];
const calm = matchMedia("(prefers-reduced-motion: reduce)");
root.dataset.js = "";

// Theme: kept in a cookie, so the server can draw the right one at once.
const markTheme = () =>
  $$("[data-set-theme]").forEach((b) => b.setAttribute("aria-pressed", String(b.dataset.setTheme === (root.dataset.theme || "system"))));

function setTheme(theme) {
  const age = theme === "system" ? 0 : 31536000;
  const [prefix, secure] = location.protocol === "https:" ? ["__Host-", "; secure"] : ["", ""];
  document.cookie = `${prefix}theme=${theme}; path=/; max-age=${age}; samesite=lax${secure}`;
  if (theme === "system") delete root.dataset.theme;
  else root.dataset.theme = theme;
  markTheme();
}

// The balance chip counts from the old value to the new one inside the new text's own separators.
const chipFigure = () => $("#balance-chip [data-minor]");
let known = null;

function drawDigits(template, value) {
  let digits = String(Math.abs(Math.round(value)));
  const wanted = template.replace(/\D/g, "").length;
  if (digits.length > wanted) return template;
  digits = digits.padStart(wanted, "0").split("");
  return template.replace(/\d/g, () => digits.shift());
}

function count(figure, from, to) {
  const text = figure.textContent;
  const chip = figure.closest(".chip");
  const start = performance.now();
  chip.classList.add("moved");
  setTimeout(() => chip.classList.remove("moved"), 1300);
  if (calm.matches) return;
  chip.setAttribute("aria-busy", "true"); // a screen reader waits for the end
  figure.textContent = drawDigits(text, from);
  const step = (now) => {
    const part = Math.min(1, Math.max(0, now - start) / 600);
    const eased = 1 - (1 - part) ** 3;
    figure.textContent = part < 1 ? drawDigits(text, from + (to - from) * eased) : text;
    if (part < 1 && figure.isConnected) requestAnimationFrame(step);
    else chip.removeAttribute("aria-busy");
  };
  requestAnimationFrame(step);
}

// What the chip knows also stands in the navigation: how many bills are unpaid.
function noticeUnpaid() {
  const now = $("#balance-chip")?.dataset.unpaidNow;
  if (now === undefined) return;
  for (const count of $$("[data-unpaid]")) {
    count.firstChild.nodeValue = now;
    count.hidden = now === "0";
  }
}

function noticeBalance() {
  noticeUnpaid();
  const figure = chipFigure();
  if (!figure) return;
  const now = { minor: Number(figure.dataset.minor), currency: figure.dataset.currency };
  if (known && known.currency === now.currency && known.minor !== now.minor) count(figure, known.minor, now.minor);
  known = now;
}

// Countdown: <time data-until="2026-11-20T14:32:00Z" data-left="900">; says data-over when it is over and fires "expired".
// The server says how many seconds are left, as a reader's clock may be wrong.
const ends = new WeakMap();

function tick() {
  for (const clock of $$("time[data-until]:not([data-done])")) {
    const until = clock.dataset.until; // a morph gives the same element another end
    if (ends.get(clock)?.until !== until) ends.set(clock, { until, at: Date.now() + Number(clock.dataset.left) * 1000 });
    const left = Math.ceil((ends.get(clock).at - Date.now()) / 1000);
    if (left > 0) {
      clock.textContent = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
    } else {
      clock.dataset.done = "";
      clock.textContent = clock.dataset.over || "0:00";
      clock.dispatchEvent(new CustomEvent("expired", { bubbles: true }));
    }
  }
}

// Toasts leave by themselves, but never while the pointer or the focus is on them.
function dismiss(toast) {
  if (toast.matches(":hover, :focus-within")) return setTimeout(dismiss, 2000, toast);
  toast.classList.add("going");
  setTimeout(() => toast.remove(), 220);
}

const armToasts = () =>
  $$(".toast:not([data-armed])").forEach((toast) => {
    toast.dataset.armed = "";
    setTimeout(dismiss, 7000, toast);
  });

function say(text, tone = "") {
  const piece = $("#toast-template")?.content.cloneNode(true);
  if (!piece) return;
  $("[data-text]", piece).textContent = text;
  if (tone) $(".toast", piece).classList.add(tone);
  $("#toasts").append(piece);
  armToasts();
}

async function copy(button) {
  const text = button.dataset.copy.startsWith("/") ? location.origin + button.dataset.copy : button.dataset.copy;
  try {
    await navigator.clipboard.writeText(text);
    say(button.dataset.copied || "Copied");
  } catch {
    window.prompt(button.dataset.label || "Copy this", text);
  }
}

// A form whose answer is copied: <form data-copy-answer="Link copied">. Asked for as text; if that fails, the form goes its plain way.
document.addEventListener("submit", (event) => {
  const form = event.target.closest("[data-copy-answer]");
  if (!form) return;
  event.preventDefault();
  const menu = form.closest("details.menu[open]");
  if (menu) close(menu, true);
  copyAnswer(form);
});

async function askText(form) {
  const answer = await fetch(form.action, { method: "POST", body: new FormData(form), headers: { Accept: "text/plain" }, redirect: "error" });
  if (!answer.ok || !answer.headers.get("Content-Type")?.startsWith("text/plain")) throw new Error("no text");
  return answer.text();
}

// The clipboard is asked within the click, with a promise of the text: WebKit refuses it later.
async function copyAnswer(form) {
  const text = askText(form);
  try {
    await navigator.clipboard.write([new ClipboardItem({ "text/plain": text.then((known) => new Blob([known], { type: "text/plain" })) })]);
    say(form.dataset.copyAnswer);
  } catch {
    text.then((known) => window.prompt("Copy this", known), () => form.submit());
  }
}

function problem(text, href = "", word = "") {
  const piece = $("#problem-template")?.content.cloneNode(true);
  if (!piece) return;
  $("[data-text]", piece).textContent = text;
  if (href) $("[data-text]", piece).append(" ", Object.assign(document.createElement("a"), { href, rel: "noopener", className: "link", textContent: word }));
  $("#problem").replaceChildren(piece);
}

// Leaving for a payment page. A browser that refuses the way, or an address that does not answer, leaves the reader here without
// a word: say it, with a plain link. The address is asked for with the same form, which opens no second page.
const LEAVING_MS = 20000;
let leaving = null;

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || !(form.matches("[data-leaves]") || $("[data-leaves]:checked", form))) return;
  clearTimeout(leaving?.timer);
  leaving = { form, data: new FormData(form, event.submitter), timer: setTimeout(stay, LEAVING_MS, "The payment page has not opened yet.") };
});

document.addEventListener("securitypolicyviolation", (event) => {
  if (leaving && event.effectiveDirective === "form-action") stay("Your browser did not open the payment page.");
});
addEventListener("pagehide", () => clearTimeout(leaving?.timer));

async function stay(text) {
  const { form, data, timer } = leaving;
  clearTimeout(timer);
  const answer = await fetch(form.action, { method: "POST", body: new URLSearchParams(data), headers: { Accept: "text/plain" }, redirect: "error" }).catch(() => null);
  const url = answer?.ok && answer.headers.get("Content-Type")?.startsWith("text/plain") ? await answer.text() : "";
  problem(`${text} Nothing was charged.${url ? "" : " Choose another way, or try again in a moment."}`, url, "Open it here");
}

// Menus and the drawer are details elements: close them on a click outside, on Escape and when focus leaves.
const openMenus = () => $$("details.menu[open]");

function close(menu, back = false) {
  menu.open = false;
  if (back) $("summary", menu).focus();
}

function place(menu) {
  const pop = $(".pop", menu);
  if (!menu.open || !pop || menu.classList.contains("drawer")) return;
  pop.classList.remove("up");
  const box = pop.getBoundingClientRect();
  if (box.bottom > innerHeight && box.height < menu.getBoundingClientRect().top) pop.classList.add("up");
}

function walk(menu, event) {
  const items = $$(".item:not([disabled])", menu);
  const at = items.indexOf(document.activeElement);
  const next = { ArrowDown: at + 1, ArrowUp: at < 0 ? items.length - 1 : at - 1, Home: 0, End: items.length - 1 }[event.key];
  if (next === undefined || !items.length) return;
  event.preventDefault();
  items.at(next % items.length).focus();
}

document.addEventListener("click", (event) => {
  const target = event.target.closest("[data-set-theme], [data-copy], [data-dismiss], [data-fill], [data-print], [data-reveal]");
  for (const menu of openMenus()) if (!menu.contains(event.target) || (target && menu.contains(target) && !target.dataset.setTheme)) close(menu);
  if (!target) {
    const drawer = event.target.closest(".drawer > .pop");
    if (drawer && !event.target.closest("nav, button")) close(drawer.parentElement);
    return;
  }
  if (target.dataset.setTheme) setTheme(target.dataset.setTheme);
  if (target.dataset.copy) copy(target);
  if ("dismiss" in target.dataset) target.closest(".toast, .notice").remove();
  if ("print" in target.dataset) window.print();
  if (target.dataset.fill) fill(target);
  if (target.dataset.reveal) reveal(target);
});

// A password shown while it is typed: <button type="button" data-reveal="password" aria-pressed="false">.
function reveal(button) {
  const input = document.getElementById(button.dataset.reveal);
  const shown = input.type === "password";
  input.type = shown ? "text" : "password";
  button.setAttribute("aria-pressed", String(shown));
  input.focus();
}

// A suggested value: <button type="button" data-fill="100" data-into="amount">.
function fill(button) {
  const input = document.getElementById(button.dataset.into);
  input.value = button.dataset.fill;
  input.dispatchEvent(new Event("input", { bubbles: true }));
  input.dispatchEvent(new Event("change", { bubbles: true }));
}

document.addEventListener("keydown", (event) => {
  const menu = event.target.closest?.("details.menu[open]");
  if (event.key === "Escape") openMenus().forEach((open) => close(open, open === menu || open.contains(document.activeElement)));
  else if (menu) walk(menu, event);
});

// A press on a label or on empty space moves the focus to an element around the menu: that is not leaving it.
// Closed after the event only: browsers do not expect the focused part of a page to vanish inside it.
document.addEventListener("focusout", (event) => {
  const menu = event.target.closest?.("details.menu[open]:not(.drawer)");
  const next = event.relatedTarget;
  if (menu && next && !menu.contains(next) && !next.contains(menu)) setTimeout(close, 0, menu);
});

// A search asks while it is typed; leaving the field asks nothing new.
document.addEventListener("change", (event) => event.target.matches?.(".live") && event.stopPropagation(), true);

document.addEventListener("toggle", (event) => {
  if (event.target.matches?.("details.menu")) place(event.target);
}, true);

// "Select all" of a table: <input type="checkbox" data-all="number"> ticks every [name=number].
document.addEventListener("change", (event) => {
  const all = event.target.dataset?.all;
  if (all) $$(`input[name="${all}"]`).forEach((box) => (box.checked = event.target.checked));
});

// htmx: the line of a request in flight, focus on the first error, one place for what went wrong.
const flights = new WeakMap();
const lengthened = new WeakMap();
const regionOf = (ctx) => {
  const target = ctx.target instanceof Element ? ctx.target : ctx.sourceElement;
  return target?.closest(".region") || target;
};

document.addEventListener("htmx:before:request", (event) => {
  const ctx = event.detail.ctx;
  const region = regionOf(ctx);
  if (region) flights.set(ctx, [region, setTimeout(() => region.classList.add("busy"), 150)]);
  const more = ctx.sourceElement?.closest?.(".more");
  if (more) lengthened.set(ctx, more.previousElementSibling);
});

// The page of a proxy or of a network's login is no part of ours: what stands on the screen stays.
document.addEventListener("htmx:before:response", (event) => {
  const { status, headers } = event.detail.ctx.response;
  if (headers.has("X-Request-Id") && (status < 500 || headers.has("HX-Retarget"))) return;
  event.preventDefault();
  problem("The server could not be reached. Nothing was sent twice; try again in a moment.");
});

document.addEventListener("htmx:finally:request", (event) => {
  const [region, timer] = flights.get(event.detail.ctx) || [];
  clearTimeout(timer);
  region?.classList.remove("busy");
});

document.addEventListener("htmx:after:request", (event) => {
  if (event.detail.ctx.response.status < 400) $("#problem")?.replaceChildren();
});

document.addEventListener("htmx:error", (event) => {
  if (!event.detail.ctx?.response) problem("The server could not be reached. Nothing was sent twice; try again in a moment.");
});

document.addEventListener("htmx:after:swap", (event) => {
  arrive();
  const ctx = event.detail.ctx;
  if (ctx?.response?.status === 422) $('[aria-invalid="true"]')?.focus();
  // What the preview says of an amount marks its field, too.
  const quote = $("#quote");
  if (quote) $("#amount").setAttribute("aria-invalid", quote.hasAttribute("data-problem"));
  // The button that loaded more is gone: the focus goes on with the first of the new rows.
  const rows = lengthened.get(ctx)?.nextElementSibling;
  if (rows && document.activeElement === document.body) {
    rows.tabIndex = -1;
    ($("a, button", rows) || rows).focus({ preventScroll: true });
  }
  // Another page of a list begins at its first row.
  const results = ctx?.target?.id === "results" && $("#results");
  if (results && results.getBoundingClientRect().top < 0) results.scrollIntoView();
});

function arrive() {
  noticeBalance();
  armToasts();
  markTheme();
  tick();
}

// Coming back: a page from the browser's memory may show money that has moved, or belong to someone who has left.
addEventListener("pageshow", (event) => event.persisted && location.reload());
document.addEventListener("visibilitychange", () => {
  const chip = $("#balance-chip");
  if (document.visibilityState === "visible" && chip && window.htmx) htmx.ajax("GET", "/balance", { source: chip, target: chip, swap: "outerMorph" });
});

setInterval(tick, 1000);
if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
else start();

function start() {
  arrive();
  $$("[data-timezone]").forEach((input) => (input.value = Intl.DateTimeFormat().resolvedOptions().timeZone || ""));
  if (!$("[autofocus]")) $('[aria-invalid="true"]')?.focus();
}

// A chart under the pointer says its day: the rows of its own table are the data.
function read(chart, x) {
  const box = chart.querySelector("svg").getBoundingClientRect();
  const width = chart.querySelector("svg").viewBox.baseVal.width / 10;
  const place = Math.min(width - 1, Math.max(0, Math.floor(((x - box.left) / box.width) * width)));
  const row = $$("[data-at]", chart).findLast((known) => Number(known.dataset.at) <= place);
  return { at: ((place + 0.5) / width) * 100, words: [...row.cells].map((cell) => cell.textContent) };
}

document.addEventListener("pointermove", (event) => {
  const chart = event.target.closest?.("[data-chart]");
  const old = $(".chart [data-reading].on");
  if (old && old.closest("[data-chart]") !== chart) rest(old);
  if (!chart) return;
  const reading = $("[data-reading]", chart);
  const { at, words } = read(chart, event.clientX);
  reading.dataset.rest ??= reading.textContent;
  reading.textContent = words.join(" · ");
  reading.classList.add("on");
  const line = $(".mark-at", chart) || chart.appendChild(Object.assign(document.createElement("i"), { className: "mark-at" }));
  line.style.insetInlineStart = `${at}%`;
});

function rest(reading) {
  reading.textContent = reading.dataset.rest;
  reading.classList.remove("on");
  $(".mark-at", reading.closest("[data-chart]"))?.remove();
}
