// Two lists side by side: the pinned one stays, the other follows the controls. Knows answers, not how they are asked for.
const $ = (id) => document.getElementById(id);
let pinned = null;

function short(title) { return title.split(" - ")[0]; }
function line(item, other) {
  const made = document.createElement("li"), place = document.createElement("b"), text = document.createElement("span");
  const there = other.findIndex((one) => one.item_id === item.item_id) + 1, tag = document.createElement("span");
  place.textContent = item.rank;
  text.textContent = short(item.title);
  tag.className = `tag ${there ? "" : "down"}`;
  tag.textContent = there ? `now ${there}` : "gone";
  made.append(place, text, tag);
  return made;
}
export function togglePin(answer, settings) { // keep this answer beside what comes next, or let it go
  pinned = pinned || !answer ? null : { answer, settings };
  drawPinned(answer);
}
export function drawPinned(answer) {
  $("pin").setAttribute("aria-pressed", String(Boolean(pinned)));
  $("pin").textContent = pinned ? "Stop comparing" : "Compare with the next";
  $("pinned").hidden = !pinned || !answer;
  document.body.classList.toggle("comparing", !$("pinned").hidden);
  if ($("pinned").hidden) return;
  const old = pinned.answer, both = old.items.filter((item) => answer.items.some((one) => one.item_id === item.item_id)).length;
  const kinds = (list) => new Set(list.items.map((item) => item.category)).size;
  $("pinned-said").textContent = `“${old.instruction}” ${pinned.settings}`;
  $("pinned-figures").textContent =
    `${both} of ${old.items.length} in both · categories ${kinds(old)} then, ${kinds(answer)} now · ${old.milliseconds.toFixed(0)} ms then, ${answer.milliseconds.toFixed(0)} ms now`;
  $("pinned-items").replaceChildren(...old.items.map((item) => line(item, answer.items)));
}
