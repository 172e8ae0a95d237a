// The interactive parts of the page: the weights of one router, and tables that can be sorted and searched.
"use strict";

const ROW = 15, CELL = 13, GAP = 4, TOP = 34;

function decode(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Uint16Array(bytes.buffer);
}

// Viridis at nine places, between which colours are interpolated.
const SHADES = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129],
  [92, 200, 99], [170, 220, 50], [253, 231, 37]];

function shade(part) {
  const place = Math.min(Math.max(part, 0), 1) * (SHADES.length - 1), low = Math.min(Math.floor(place), 7);
  const mix = (i) => Math.round(SHADES[low][i] + (place - low) * (SHADES[low + 1][i] - SHADES[low][i]));
  return `rgb(${mix(0)},${mix(1)},${mix(2)})`;
}

function showHeads(root, data) {
  const {tasks, splits, skills, skill_names: names, routers} = data;
  const canvas = root.querySelector("canvas"), tip = root.querySelector("output");
  const choose = root.querySelector("select"), search = root.querySelector("input");
  const context = canvas.getContext("2d"), scale = window.devicePixelRatio || 1;
  const head = skills * CELL + GAP, longest = Math.max(...tasks.map((task) => task.length));
  const left = Math.min(longest * 6.6, 300) + 12;
  let router, weights, rows, sorted = null, at = null;

  const weight = (task, column) => router.low + (router.high - router.low) * weights[task * splits * skills + column] / 65535;
  const x = (column) => left + Math.floor(column / skills) * head + (column % skills) * CELL;

  function arrange() {
    const words = search.value.toLowerCase();
    rows = tasks.map((_, task) => task).filter((task) => tasks[task].toLowerCase().includes(words));
    if (sorted !== null) rows.sort((a, b) => weight(b, sorted) - weight(a, sorted) || a - b);
    draw();
  }

  function draw() {
    const width = left + splits * head, height = TOP + rows.length * ROW;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    canvas.width = width * scale;
    canvas.height = height * scale;
    context.scale(scale, scale);
    context.font = "11px system-ui, sans-serif";
    context.fillStyle = "#1f2933";
    const every = Math.ceil(48 / head);
    for (let h = 0; h < splits; h += every) context.fillText(splits > 1 ? `head ${h}` : "skills", x(h * skills), 12);
    if (sorted !== null) context.fillText("▾", x(sorted) + 2, TOP - 4);
    rows.forEach((task, row) => {
      const y = TOP + row * ROW;
      context.fillStyle = "#1f2933";
      context.fillText(tasks[task], 4, y + 11, left - 12);
      for (let h = 0; h < splits; h++) {
        let best = h * skills;
        for (let column = h * skills; column < (h + 1) * skills; column++) {
          context.fillStyle = shade((weight(task, column) - router.low) / (router.high - router.low || 1));
          context.fillRect(x(column), y, CELL - 1, ROW - 1);
          if (weight(task, column) > weight(task, best)) best = column;
        }
        context.strokeStyle = "#d62728";
        context.lineWidth = 1.5;
        context.strokeRect(x(best) + 0.75, y + 0.75, CELL - 2.5, ROW - 2.5);
      }
    });
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    const right = event.clientX - box.left - left, down = event.clientY - box.top - TOP;
    const h = Math.floor(right / head), skill = Math.floor((right - h * head) / CELL);
    if (right < 0 || h >= splits || skill >= skills) return null;
    return {column: h * skills + skill, head: h, skill, row: Math.floor(down / ROW)};
  }

  canvas.addEventListener("mousemove", (event) => {
    at = place(event);
    const task = at && at.row >= 0 ? rows[at.row] : undefined;
    tip.textContent = task === undefined ? "" :
      `${tasks[task]}: ${splits > 1 ? `head ${at.head}, ` : ""}skill ${names.length ? names[at.skill] : at.skill}, weight ${weight(task, at.column).toFixed(3)}`;
  });
  canvas.addEventListener("mouseleave", () => { tip.textContent = ""; });
  canvas.addEventListener("click", (event) => {
    const clicked = place(event);
    sorted = clicked && clicked.column !== sorted ? clicked.column : null;
    arrange();
  });
  search.addEventListener("input", arrange);
  choose.addEventListener("change", () => {
    router = routers[choose.selectedIndex];
    weights = decode(router.weights);
    arrange();
  });
  choose.dispatchEvent(new Event("change"));
}

function makeSortable(table) {
  table.querySelectorAll("th").forEach((header, column) => {
    // Names start at A, and numbers with the largest; another click turns the order round.
    const text = header.classList.contains("text");
    let sign = text ? 1 : -1;
    const value = (row) => {
      const cell = row.cells[column].textContent.trim();
      if (text) return cell.toLowerCase();
      const number = parseFloat(cell);
      return Number.isNaN(number) ? -Infinity : number;
    };
    header.addEventListener("click", () => {
      const rows = [...table.tBodies[0].rows].map((row) => [value(row), row]);
      rows.sort(([a], [b]) => sign * (a < b ? -1 : a > b ? 1 : 0));
      table.tBodies[0].append(...rows.map(([, row]) => row));
      sign = -sign;
    });
  });
}

function makeSearchable(input, table) {
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase();
    for (const row of table.tBodies[0].rows) row.hidden = !row.textContent.toLowerCase().includes(words);
  });
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
document.querySelectorAll("input[data-table]").forEach((input) =>
  makeSearchable(input, document.getElementById(input.dataset.table)));
const data = document.getElementById("weights");
if (data) showHeads(document.getElementById("heads"), JSON.parse(data.textContent));
