// The playground: reads the page's controls, asks /v1/recommend with explain, draws what comes back. No dependency.
import { drawPinned, togglePin } from "/playground/compare.js";
const $ = (id) => document.getElementById(id);
const N = 12;
const TASKS = [
  ["", "In your words", "Say it in your own words"],
  ["just_for_you", "For you", "nothing needed; words are welcome"],
  ["query", "Search", "what are they looking for?"],
  ["category", "Category", "a category of the catalog"],
  ["discover", "Discover", "nothing needed; words are welcome"],
  ["longtail", "Hidden gems", "nothing needed; words are welcome"],
  ["season", "Season", "nothing needed; words are welcome"],
  ["holiday", "Holiday", "nothing needed; words are welcome"],
  ["trending", "Trending", "nothing needed; words are welcome"],
  ["campaign", "Offers", "what the offer is for; empty: their newest"],
];
const IDEAS = [
  ["", "Halloween is coming, what could we need?"], ["", "something for taco night"], ["", "surprise me with something new"],
  ["query", "ice cream"], ["query", "quick breakfast"], ["category", "coffee"],
];
const state = { task: "", user: "", cold: false, tab: "recent", card: null, about: null, answer: null, last: [], asked: "", shelf: 0 };
const TABS = ["recent", "favorites"];
let running = null, known = null, timer = 0;

// ------------------------------------------------------------------------------------------ helpers
function el(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== "") made.textContent = text;
  return made;
}
const seen = new Map();
function hue(text) { // a category keeps its colour while the page is open; neighbours in order of appearance differ most
  if (!seen.has(text)) seen.set(text, seen.size);
  return (150 + seen.get(text) * 137.508) % 360;
}
function tone(text) { return `oklch(var(--tone-l) var(--tone-c) ${hue(text)})`; }
function toned(made, text) { made.style.setProperty("--tone", tone(text)); return made; }
function percent(p) { return p === 0 ? "0%" : p >= 0.1 ? `${(100 * p).toFixed(0)}%` : p >= 0.001 ? `${(100 * p).toFixed(1)}%` : "<0.1%"; }
function parts(title) { // "Ice Cream 48 oz - private brand, maker 69" -> name and detail
  const at = title.indexOf(" - ");
  return at < 0 ? [title, ""] : [title.slice(0, at), title.slice(at + 3)];
}
function mark(category) {
  const words = (category || "?").split(/\s+/);
  const letters = words[0].slice(0, 1).toUpperCase() + (words[0].slice(1, 2) || "");
  const made = toned(el("span", "mark", letters), category);
  made.setAttribute("aria-hidden", "true");
  return made;
}
function ago(days) { return days === 0 ? "today" : days === 1 ? "yesterday" : `${days} days ago`; }

async function call(path, body, signal) {
  const headers = { "content-type": "application/json" };
  const key = sessionStorage.getItem("sigma-key");
  if (key) headers["x-api-key"] = key;
  const reply = await fetch(path, body ? { method: "POST", headers, body: JSON.stringify(body), signal } : { headers, signal }).catch((error) => {
    if (error.name === "AbortError") throw error;
    throw new Error("No answer from the server. Look whether sigma serve still runs, then ask again.");
  });
  if (reply.status === 401 && (await askKey())) return call(path, body, signal);
  const content = await reply.json().catch((error) => {
    if (error.name === "AbortError") throw error; // a newer wish, while this answer was read
    throw new Error(`The server answered ${reply.status}, and not in JSON.`);
  });
  if (!reply.ok) throw Object.assign(new Error(content.message), { id: content.request_id });
  return content;
}
function askKey() {
  const dialog = $("key-dialog");
  if (dialog.open) return Promise.resolve(false);
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => {
    if (dialog.returnValue === "ok") sessionStorage.setItem("sigma-key", $("key").value);
    done(dialog.returnValue === "ok");
  }, { once: true }));
}

// ---------------------------------------------------------------------------------------------- who
async function showUser() {
  const mine = known = {};
  let card = null;
  if (!state.cold && state.user) {
    try { card = await call(`/v1/users/${encodeURIComponent(state.user)}`); } catch { card = null; }
  }
  if (mine !== known) return; // somebody else was chosen meanwhile
  state.card = card;
  $("nobody").setAttribute("aria-pressed", String(state.cold));
  const profile = state.cold ? ["nobody we know"] : state.card ? (state.card.profile || "profile unknown").split(", ") : ["never seen here"];
  $("profile").replaceChildren(...profile.map((word) => el("span", "chip", word)));
  showHistory();
}
function showHistory() {
  for (const name of TABS) {
    $(`tab-${name}`).setAttribute("aria-selected", String(state.tab === name));
    $(`tab-${name}`).tabIndex = state.tab === name ? 0 : -1;
  }
  $("purchases").setAttribute("aria-labelledby", `tab-${state.tab}`);
  const events = state.card ? state.card[state.tab] : [];
  const cards = events.map((event) => {
    const line = el("li"), [name, detail] = parts(event.title), text = el("div");
    text.append(el("div", "name", name), el("div", "detail", detail));
    const when = el("div", "when", ago(event.days_ago));
    if (event.count > 1) when.append(el("br"), `${event.count} times`);
    line.append(mark(event.category), text, when);
    return line;
  });
  $("history").replaceChildren(...(cards.length ? cards : [el("li", "empty", "No purchases: the list comes from the wish alone.")]));
}

// --------------------------------------------------------------------------------------------- wish
function temperature() { return 10 ** (Number($("t").value) / 20); }
function wish() {
  const words = $("words").value.trim(), about = state.about, filters = { owned: $("owned").value };
  for (const field of ["departments", "brands", "price_bands"]) if ($(field).value) filters[field] = [$(field).value];
  if ($("only_new").checked) filters.only_new = true;
  const steps = { temperature: temperature() };
  if (Number($("k").value) !== about.num_prefixes) steps.num_prefixes = Number($("k").value);
  if (Number($("m").value) !== about.items_per_prefix) steps.items_per_prefix = Number($("m").value);
  const asked = { n: N, explain: true, filters, steps };
  if (!state.cold && state.user) asked.user_id = state.user;
  if (state.task) asked.task = state.task;
  if (state.task === "query" || state.task === "category") { if (words) asked[state.task] = words; }
  else if (state.task === "campaign") { if (words) asked.query = words; }
  else if (words) asked.instruction = words;
  return asked;
}
function showControls() {
  const about = state.about, t = temperature();
  $("k-out").textContent = $("k").value;
  $("m-out").textContent = $("m").value;
  $("t-out").textContent = `× ${t < 1 ? t.toFixed(2) : t.toFixed(1)}`;
  $("t").setAttribute("aria-valuetext", `times ${t.toFixed(2)}`);
  const task = TASKS.find(([name]) => name === state.task);
  $("words").placeholder = task[2];
  $("words").setAttribute("list", state.task === "category" ? "categories" : "");
  for (const button of $("tasks").children) {
    const on = button.dataset.task === state.task;
    button.setAttribute("aria-checked", String(on));
    button.tabIndex = on ? 0 : -1;
  }
  const changed = [$("departments").value, $("brands").value, $("price_bands").value].filter(Boolean);
  if ($("only_new").checked) changed.push("new");
  if ($("owned").value !== "task") changed.push($("owned").selectedOptions[0].textContent);
  if (Number($("k").value) !== about.num_prefixes) changed.push(`K ${$("k").value}`);
  if (Number($("m").value) !== about.items_per_prefix) changed.push(`M ${$("m").value}`);
  if ($("t").value !== "0") changed.push($("t-out").textContent);
  $("set").textContent = changed.length ? `· ${changed.join(" · ")}` : "";
  const hash = new URLSearchParams({ user: state.cold ? "" : state.user, task: state.task, words: $("words").value });
  history.replaceState(null, "", `#${hash}`);
}
function soon(wait = 220) { showControls(); clearTimeout(timer); timer = setTimeout(ask, wait); }

async function ask() {
  clearTimeout(timer);
  running?.abort();
  const mine = running = new AbortController();
  if ((state.task === "query" || state.task === "category") && !$("words").value.trim()) {
    setBusy(false);
    clear(); // what stands there answers another wish
    return say(state.task === "query" ? "Type what they are looking for." : "Name a category, for example coffee.");
  }
  setBusy(true);
  const asked = wish(), same = JSON.stringify({ ...asked, filters: 0, steps: 0 }); // who asks, and for what
  try {
    const answer = await call("/v1/recommend", asked, mine.signal);
    if (mine !== running) return;
    state.last = state.answer && state.asked === same ? state.answer.items.map((item) => item.item_id) : [];
    Object.assign(state, { answer, asked: same, shelf: 0 });
    show();
  } catch (error) {
    if (error.name === "AbortError") return;
    clear();
    say(error.message + (error.id ? ` (request ${error.id.slice(0, 8)})` : ""), true);
  }
  if (mine === running) setBusy(false);
}
function setBusy(busy) {
  document.body.classList.toggle("busy", busy);
  $("items").setAttribute("aria-busy", String(busy));
}
function clear() {
  state.answer = null;
  $("items").replaceChildren();
  $("served").textContent = $("said").textContent = $("heard").textContent = "";
  $("taken").hidden = true;
  drawSteps();
  drawPinned(null);
}
function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

// --------------------------------------------------------------------------------------------- list
function show() {
  const { answer, last } = state;
  const who = { model: "the model", u2i: "prepared list", popularity: "popularity" }[answer.served_by];
  const fresh = answer.prompt_tokens - answer.cached_tokens, told = answer.prompt_tokens ? ` · read ${fresh} of ${answer.prompt_tokens} tokens` : "";
  $("served").textContent = `${who} · ${answer.milliseconds.toFixed(0)} ms${told}`;
  $("served").classList.toggle("fallback", answer.served_by !== "model");
  $("said").textContent = [answer.instruction ? `“${answer.instruction}”` : "", ...answer.understood].filter(Boolean).join(" · ");
  showTaken(answer);
  $("heard").textContent = `${answer.items.length} items, first ${answer.items[0]?.title || "none"}. ${$("taken").hidden ? "" : $("taken").textContent}`;
  say(answer.items.length ? answer.note : "Nothing passes these filters. Loosen one of them.");
  const best = Math.max(...answer.items.map((item) => item.score), 1e-12);
  $("items").replaceChildren(...answer.items.map((item) => {
    const line = toned(el("li"), item.category), text = el("div"), [name, detail] = parts(item.title);
    const head = el("div", "name", name), score = el("div", "score", item.score.toFixed(4)), track = el("div", "track"), bar = el("i");
    if (item.owned) head.append(el("span", "tag", "bought before"));
    if (item.is_new) head.append(el("span", "tag fresh", "new"));
    const before = last.indexOf(item.item_id) + 1;
    if (before && before !== item.rank) head.append(moved(before - item.rank));
    score.title = "Probability of this item: P(c) × P(item | c)";
    text.append(head, el("div", "detail", [item.category, detail].filter(Boolean).join(" · ")));
    bar.style.width = `${(100 * item.score) / best}%`;
    track.append(bar);
    score.prepend(track);
    line.append(el("span", "rank", String(item.rank)), mark(item.category), text, score);
    if (state.about.takes_events && !state.cold && state.user) {
      const buy = el("button", "buy", "+");
      buy.type = "button";
      buy.title = "They buy it: watch the list follow";
      buy.setAttribute("aria-label", `${name}: they buy it`);
      buy.addEventListener("click", () => bought(item));
      line.append(buy);
    }
    line.dataset.item = item.item_id;
    line.addEventListener("mouseenter", () => { light(item.item_id); pick(shelfOf(item)); });
    line.addEventListener("mouseleave", () => light(null));
    line.addEventListener("focusin", () => { light(item.item_id); pick(shelfOf(item)); });
    line.addEventListener("focusout", () => light(null));
    return line;
  }));
  drawSteps();
  drawPinned(answer);
}
function moved(places) { // since the list before, for the same wish of the same household
  const made = el("span", `tag ${places > 0 ? "up" : "down"}`, `${places > 0 ? "▲" : "▼"} ${Math.abs(places)}`);
  made.title = `${Math.abs(places)} places ${places > 0 ? "up" : "down"} since the list before`;
  made.setAttribute("role", "img");
  made.setAttribute("aria-label", made.title);
  return made;
}
function label(task) { return (TASKS.find(([name]) => name === task) || [task, task])[1]; }
function showTaken({ task, taken_for: taken }) { // which task free words were taken for, and how surely
  $("taken").hidden = !taken;
  if (!taken) return;
  const sure = `${(100 * taken.confidence).toFixed(0)}% sure`;
  $("taken").textContent = taken.followed ? `taken for ${label(task)} · ${sure}` : `answered as ${label(task)} · nearest ${label(taken.task)}, ${sure}`;
  $("taken").classList.toggle("fallback", !taken.followed);
}
function shelfOf(item) {
  const shelves = state.answer.explanation?.prefixes || [];
  return shelves.findIndex((shelf) => String(shelf.prefix) === String(item.prefix));
}
function light(itemId) {
  for (const line of $("items").children) line.classList.toggle("lit", line.dataset.item === itemId);
  for (const box of $("mosaic").querySelectorAll("rect[data-item]")) box.style.opacity = !itemId || box.dataset.item === itemId ? "" : "0.25";
}

async function bought(item) { // an event of the day after; the list follows when nearline has read it
  const next = new Date(`${state.about.day}T00:00:00Z`), clock = new Date(), user = state.user, since = performance.now();
  next.setUTCDate(next.getUTCDate() + 1);
  const time = `${next.toISOString().slice(0, 10)}T${clock.toTimeString().slice(0, 8)}.${String(clock.getMilliseconds()).padStart(3, "0")}`;
  try {
    await call("/v1/events", { events: [{ user_id: user, item_id: item.item_id, event_time: time }] });
    for (let tries = 0; tries < 40 && state.user === user; tries += 1) {
      const card = await call(`/v1/users/${encodeURIComponent(user)}`).catch(() => null);
      if (card?.recent[0]?.item_id === item.item_id) break;
      await new Promise((done) => setTimeout(done, 150));
    }
    if (state.user !== user) return;
    const took = performance.now() - since;
    await Promise.all([showUser(), ask()]);
    const { milliseconds: ms, prompt_tokens: all, cached_tokens: kept } = state.answer || {};
    const read = all ? ` ${all - kept} of ${all} tokens read, ${kept} from the session cache.` : "";
    if (state.answer) say(`Bought: ${parts(item.title)[0]}. History knew it after ${took.toFixed(0)} ms, the list took ${ms.toFixed(0)} ms.${read}`);
  } catch (error) {
    say(error.message, true);
  }
}

// -------------------------------------------------------------------------------------------- steps
function drawSteps() {
  const why = state.answer?.explanation;
  const none = () => el("div", "empty", state.answer ? "This list was not made by the model, so there are no steps." : "No list, no steps.");
  const drawn = Boolean(why && why.prefixes.length);
  for (const article of document.querySelectorAll(".steps article")) article.hidden = !drawn;
  if (!drawn) return $("figures").replaceChildren(none());
  const { items } = state.answer;
  const kinds = new Set(items.map((item) => item.category)).size, owned = items.filter((item) => item.owned).length;
  $("figures").replaceChildren(...[
    [`${kinds}`, `categories among ${items.length}`],
    [percent(owned / Math.max(items.length, 1)), "bought before"],
    [percent(why.covered), `of probability in ${why.num_prefixes} shelves`],
    [why.sharpness.toFixed(1), `sharpness, σ ${why.sigma.toFixed(3)}`],
  ].map(([value, label]) => { const made = el("div", "figure"); made.append(el("b", "", value), el("span", "", label)); return made; }));
  const most = why.prefixes[0].probability;
  $("beams").replaceChildren(...why.prefixes.map((shelf, index) => {
    const button = toned(el("button"), shelf.label), bar = el("span", "bar"), rail = el("span");
    button.type = "button";
    button.title = `prefix ${shelf.prefix.join("-")}, ${shelf.num_items} items kept`;
    bar.style.width = `${(100 * shelf.probability) / most}%`;
    bar.style.display = "block";
    rail.append(bar);
    const name = el("span", "label"); // several prefixes may be of one category: its codes tell them apart
    name.append(el("span", "", shelf.label || "prefix"), " ", el("span", "muted", shelf.prefix.join("-")));
    button.append(name, " ", rail, el("span", "value", percent(shelf.probability)));
    button.addEventListener("click", () => pick(index));
    return button;
  }));
  $("beams").scrollTop = 0;
  pick(state.shelf);
  drawMosaic(why);
}
function pick(index) {
  const why = state.answer?.explanation;
  if (!why || index < 0 || index >= why.prefixes.length) return;
  state.shelf = index;
  [...$("beams").children].forEach((button, n) => button.setAttribute("aria-pressed", String(n === index)));
  const shelf = why.prefixes[index], most = Math.max(...shelf.items.map((item) => item.item_probability), 1e-9);
  $("inside-of").textContent = `${shelf.label} ${shelf.prefix.join("-")}`;
  $("inside").replaceChildren(...shelf.items.slice(0, 6).map((item) => {
    const line = toned(el("div"), shelf.label);
    line.style.setProperty("--w", `${(88 * item.item_probability) / most}%`);
    const [name, detail] = parts(item.title), text = el("span", "label", name);
    if (detail) text.append(" ", el("span", "muted", detail));
    line.append(text, el("span", "value", percent(item.item_probability)));
    line.title = item.title;
    return line;
  }));
}
function fused(product, score) { // generation.catalog_fusion: a third factor, what the whole catalog says of the item
  return product > 0 && Math.abs(score / product - 1) > 0.01 ? ` × ${(score / product).toPrecision(2)} (whole catalog)` : "";
}
function drawMosaic(why) {
  const W = 600, H = 300, space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", `0 0 ${W} ${H}`);
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", "Each column is a prefix, as wide as it is probable; each box an item, its area the fused probability.");
  const rank = new Map(state.answer.items.map((item) => [item.item_id, item.rank]));
  const total = why.prefixes.reduce((sum, shelf) => sum + shelf.probability, 0), gap = 1.5;
  let x = 0;
  for (const [index, shelf] of why.prefixes.entries()) {
    const width = (shelf.probability / total) * W;
    let y = H;
    const rest = 1 - shelf.items.reduce((sum, item) => sum + item.item_probability, 0);
    const drawn = rest > 0.01 ? [...shelf.items, { title: "all others on this shelf", item_id: "", item_probability: rest, score: rest * shelf.probability }] : shelf.items;
    for (const item of drawn) {
      const height = item.item_probability * H, box = document.createElementNS(space, "rect"), place = rank.get(item.item_id);
      y -= height;
      const size = { x: x + gap / 2, y: y + gap / 2, width: Math.max(width - gap, 0.4), height: Math.max(height - gap, 0.4), rx: 2 };
      for (const [name, value] of Object.entries(size)) box.setAttribute(name, value);
      box.style.fill = tone(shelf.label);
      box.setAttribute("fill-opacity", place ? 1 : item.item_id ? 0.34 : 0.1);
      box.dataset.item = item.item_id;
      const title = document.createElementNS(space, "title");
      title.textContent = `${item.title}\n${percent(shelf.probability)} × ${percent(item.item_probability)}${fused(shelf.probability * item.item_probability, item.score)} = ${item.score.toFixed(4)}`;
      box.append(title);
      box.addEventListener("mouseenter", () => { light(item.item_id); pick(index); });
      box.addEventListener("mouseleave", () => light(null));
      svg.append(box);
      if (place && width > 20 && height > 18) {
        const text = document.createElementNS(space, "text");
        text.setAttribute("x", x + width / 2);
        text.setAttribute("y", y + height / 2);
        text.textContent = place;
        svg.append(text);
      }
    }
    x += width;
  }
  $("mosaic").replaceChildren(svg);
}

// -------------------------------------------------------------------------------------------- start
function fill(id, values, first) {
  $(id).replaceChildren(...(first === undefined ? [] : [new Option(first, "")]), ...values.map((value) => new Option(value, value)));
}
function reset() {
  for (const id of ["departments", "brands", "price_bands"]) $(id).value = "";
  $("owned").value = "task";
  $("only_new").checked = false;
  $("k").value = state.about.num_prefixes;
  $("m").value = state.about.items_per_prefix;
  $("t").value = 0;
}
function choose(task) { state.task = task; soon(0); }
async function become(user, cold = false) {
  Object.assign(state, { user, cold });
  $("user").value = cold ? "" : user;
  soon(0);
  await showUser();
}
function theme(next) {
  document.documentElement.dataset.theme = next;
  try { localStorage.setItem("sigma-theme", next); } catch { /* private mode */ }
}
function listen(users) {
  $("theme").addEventListener("click", () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  $("user").addEventListener("change", () => become($("user").value.trim(), !$("user").value.trim()));
  $("random").addEventListener("click", () => become(users[Math.floor(Math.random() * users.length)]));
  $("nobody").addEventListener("click", () => become(state.user || users[0], !state.cold));
  for (const name of TABS) $(`tab-${name}`).addEventListener("click", () => { state.tab = name; showHistory(); });
  document.querySelector('[role="tablist"]').addEventListener("keydown", (event) => {
    if (!["ArrowRight", "ArrowLeft"].includes(event.key)) return;
    state.tab = TABS[1 - TABS.indexOf(state.tab)];
    showHistory();
    $(`tab-${state.tab}`).focus();
  });
  $("form").addEventListener("submit", (event) => { event.preventDefault(); showControls(); ask(); });
  for (const id of ["departments", "brands", "price_bands", "owned", "only_new"]) $(id).addEventListener("change", () => soon(0));
  for (const id of ["k", "m", "t"]) $(id).addEventListener("input", () => soon());
  $("reset").addEventListener("click", () => { reset(); soon(0); });
  $("pin").addEventListener("click", () => togglePin(state.answer, $("set").textContent));
  $("tasks").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = TASKS.findIndex(([name]) => name === state.task), next = (at + step + TASKS.length) % TASKS.length;
    choose(TASKS[next][0]);
    $("tasks").children[next].focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !/INPUT|SELECT/.test(document.activeElement.tagName)) { event.preventDefault(); $("words").focus(); }
  });
}
async function start() {
  let saved = null;
  try { saved = localStorage.getItem("sigma-theme"); } catch { /* private mode */ }
  theme(saved || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));
  const about = state.about = await call("/v1/about");
  const { user_ids: users } = await call("/v1/users?n=1000");
  $("about").textContent = `${about.num_items.toLocaleString("en")} items · ${about.num_users.toLocaleString("en")} households · ${about.day}`;
  fill("departments", about.departments, "any");
  fill("brands", about.brands, "any");
  fill("price_bands", about.price_bands, "any");
  fill("users", users);
  fill("categories", about.categories);
  reset();
  $("tasks").replaceChildren(...TASKS.map(([name, label]) => {
    const button = el("button", "", label);
    Object.assign(button, { type: "button", title: about.tasks[name] || "free words; the model reads them as they are" });
    button.setAttribute("role", "radio");
    button.dataset.task = name;
    button.addEventListener("click", () => choose(name));
    return button;
  }));
  $("ideas").replaceChildren(...IDEAS.map(([task, words]) => {
    const button = el("button", "", words);
    button.type = "button";
    button.addEventListener("click", () => { $("words").value = words; choose(task); });
    return button;
  }));
  listen(users);
  const asked = new URLSearchParams(location.hash.slice(1));
  if (TASKS.some(([name]) => name === asked.get("task"))) state.task = asked.get("task");
  $("words").value = asked.get("words") || "";
  await become(asked.get("user") || users[0] || "", !users.length);
}
start().catch((error) => say(error.message, true));
