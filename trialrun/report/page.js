"use strict";
// The page is complete without this script. With it the leaderboard sorts and filters, and a box
// is a stop of the Tab key only while there is something to scroll in it.

const table = document.querySelector("table[data-sortable]");
if (table) {
  const heads = [...[...table.tHead.rows].at(-1).cells];
  const status = document.querySelector("[data-shown]");
  makeSortable(heads, status);
  makeFilters(document.querySelector("[data-filters]"), heads, status);
}
for (const box of document.querySelectorAll(".scroll")) {
  new ResizeObserver(() => stopWhereItScrolls(box)).observe(box);
}

// Sorting -----------------------------------------------------------------------------------------

function makeSortable(heads, status) {
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => {
      sortRows(heads, column);
      status.textContent = `Sorted by ${head.dataset.name}, ${head.ariaSort}.`;
    });
    head.append(button);
  });
}

function sortRows(heads, column) {
  const order = heads[column].ariaSort === "ascending" ? "descending" : "ascending";
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].ariaSort = order;
  const isNumber = heads[column].classList.contains("number");
  const compare = isNumber ? compareNumbers : compareTexts;
  const sign = order === "ascending" ? 1 : -1;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  rows.sort((one, other) => compare(one.cells[column], other.cells[column], sign));
  body.append(...rows);
}

function compareNumbers(one, other, sign) {
  const [a, b] = [numberOf(one), numberOf(other)];
  if (Number.isNaN(a) || Number.isNaN(b)) {
    return Number.isNaN(a) - Number.isNaN(b); // what is not known comes last in both orders
  }
  return sign * Math.sign(a - b);
}

function compareTexts(one, other, sign) {
  return sign * one.textContent.localeCompare(other.textContent, "en", { numeric: true });
}

function numberOf(cell) {
  return "value" in cell.dataset ? Number(cell.dataset.value) : NaN;
}

// Filtering ---------------------------------------------------------------------------------------

function makeFilters(filters, heads, status) {
  const words = filters.querySelector("input");
  const choices = [...filters.querySelectorAll("select")];
  const show = () => {
    const tests = [
      ...words.value.split(/\s+/).filter(Boolean).map((word) => testOf(word, heads)),
      ...choices.filter((choice) => choice.value).map(choiceTest),
    ];
    const rows = [...table.tBodies[0].rows];
    for (const row of rows) {
      row.hidden = !tests.every((test) => test(row));
    }
    const numShown = rows.filter((row) => !row.hidden).length;
    status.textContent = `${numShown} of ${rows.length} rows.`;
  };
  words.addEventListener("input", show);
  choices.forEach((choice) => choice.addEventListener("change", show));
  filters.querySelector("button").addEventListener("click", () => {
    [words, ...choices].forEach((input) => (input.value = ""));
    show();
  });
  filters.hidden = false;
}

function choiceTest(choice) {
  return (row) => row.cells[Number(choice.dataset.column)].textContent === choice.value;
}

// `val_loss<0.3`, `units=[16,32]`; anything else is looked for in the whole row.
function testOf(word, heads) {
  const [, name, sign, wanted] = /^(.+?)(<=|>=|<|>|=)(.+)$/.exec(word) ?? [];
  const column = heads.findIndex((head) => head.dataset.name === name);
  if (column >= 0) {
    return (row) => holds(row.cells[column], sign, wanted);
  }
  const part = word.toLowerCase();
  return (row) => [...row.cells].some((cell) => cell.textContent.toLowerCase().includes(part));
}

function holds(cell, sign, wanted) {
  const [number, limit] = [numberOf(cell), Number(wanted)];
  switch (sign) {
    case "<":
      return number < limit;
    case "<=":
      return number <= limit;
    case ">":
      return number > limit;
    case ">=":
      return number >= limit;
    default:
      return number === limit || cell.textContent.replace(/\s/g, "") === wanted;
  }
}

// Boxes that scroll -------------------------------------------------------------------------------

function stopWhereItScrolls(box) {
  if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) {
    box.tabIndex = 0;
  } else {
    box.removeAttribute("tabindex");
  }
}
