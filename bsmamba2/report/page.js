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
  showRows(table, 0);
}

function filterRows(input) {
  const table = document.getElementById(input.getAttribute("aria-controls"));
  const shown = showRows(table, 0, input.value.trim().toLowerCase());
  input.closest("p").querySelector("output").value = input.value.trim() ? `${shown} of ${table.tBodies[0].rows.length}` : "";
}

// Shows a page of the rows of a table that its filter leaves, and returns how many these are.
function showRows(table, page, wanted = table.dataset.wanted ?? "") {
  const size = Number(table.dataset.rows);
  const rows = [...table.tBodies[0].rows];
  const left = rows.filter((row) => row.cells[0].dataset.value.toLowerCase().includes(wanted));
  const first = size * Math.max(0, Math.min(page, Math.ceil(left.length / size) - 1));
  const shown = new Set(left.slice(first, first + size));
  for (const row of rows) row.hidden = !shown.has(row);
  table.dataset.wanted = wanted;
  table.dataset.page = first / size;
  for (const pages of document.querySelectorAll(`[data-table="${table.id}"]`)) {
    pages.querySelector("output").value = left.length ? `${first + 1} to ${first + shown.size} of ${left.length}` : "none";
    const [previous, next] = pages.querySelectorAll("button");
    previous.disabled = first === 0;
    next.disabled = first + size >= left.length;
  }
  return left.length;
}

function turnPage(button) {
  const table = document.getElementById(button.closest("p").dataset.table);
  showRows(table, Number(table.dataset.page) + Number(button.dataset.step));
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
for (const button of document.querySelectorAll(".pages button")) button.addEventListener("click", () => turnPage(button));
for (const pages of document.querySelectorAll(".pages")) showRows(document.getElementById(pages.dataset.table), 0);
addEventListener("hashchange", openTarget);
addEventListener("load", markScrollable);
addEventListener("resize", markScrollable);
// Details are laid out when they open; this event does not bubble.
document.addEventListener("toggle", markScrollable, true);
openTarget();
