"use strict";

// Sorts a table by the column of a button in its head; undefined values stay last.
function sortBy(button) {
  const head = button.closest("th");
  const table = head.closest("table");
  const column = head.cellIndex;
  const ascending = head.getAttribute("aria-sort") !== "ascending";
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const numeric = head.dataset.kind === "number";
  const key = (row) => {
    const value = row.cells[column].dataset.value;
    return numeric ? (value === "" ? NaN : Number(value)) : value;
  };
  const body = table.tBodies[0];
  const compare = (first, second) => {
    const [a, b] = [key(first), key(second)];
    if (!numeric) return (ascending ? 1 : -1) * a.localeCompare(b, undefined, { numeric: true });
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return a === b ? 0 : (a < b ? -1 : 1) * (ascending ? 1 : -1);
  };
  body.append(...[...body.rows].sort(compare));
}

function filterRows(input) {
  const table = document.getElementById(input.getAttribute("aria-controls"));
  const wanted = input.value.trim().toLowerCase();
  let shown = 0;
  for (const row of table.tBodies[0].rows) {
    row.hidden = !row.cells[0].dataset.value.toLowerCase().includes(wanted);
    shown += row.hidden ? 0 : 1;
  }
  input.closest("p").querySelector("output").value = wanted ? `${shown} of ${table.tBodies[0].rows.length}` : "";
}

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
}

// Boxes with more content than they show can be focused and scrolled by keys; other boxes are skipped.
function markScrollable() {
  for (const box of document.querySelectorAll(".scroll")) {
    const scrolls = box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight;
    const marks = { tabindex: "0", role: "region", "aria-label": box.dataset.label };
    for (const [name, value] of Object.entries(marks)) {
      if (scrolls) box.setAttribute(name, value);
      else box.removeAttribute(name);
    }
  }
}

for (const button of document.querySelectorAll("th button")) button.addEventListener("click", () => sortBy(button));
for (const input of document.querySelectorAll("input[type=search]")) input.addEventListener("input", () => filterRows(input));
addEventListener("hashchange", openTarget);
addEventListener("load", markScrollable);
addEventListener("resize", markScrollable);
// Details are laid out when they open; this event does not bubble.
document.addEventListener("toggle", markScrollable, true);
openTarget();
