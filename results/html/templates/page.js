"use strict";

/* The JSON in a data element of the page; null where there is none. */
function dataOf(id) {
  const element = document.getElementById(id);
  return element && JSON.parse(element.textContent);
}

/* An element with attributes and children; text is only ever text. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/* What the browser remembers of the theme; where it keeps nothing for files, the theme holds for this page alone. */
function remembered(theme) {
  try {
    if (theme === undefined) return localStorage.getItem("safebasin-theme") || "";
    localStorage.setItem("safebasin-theme", theme);
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
  }
  return "";
}

function setUpTheme() {
  const select = document.getElementById("theme");
  const root = document.documentElement;
  const apply = () => {
    if (select.value) root.dataset.theme = select.value;
    else delete root.dataset.theme;
    drawCharts();
  };
  select.value = remembered();
  if (select.selectedIndex < 0) select.value = "";
  select.addEventListener("change", () => { remembered(select.value); apply(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (!select.value) drawCharts(); });
  apply();
}

/* Charts take their colours from the page, so that they are drawn again when the theme changes. */
function chartConfig(columns) {
  const style = getComputedStyle(document.body);
  const probe = make("div", { style: "display:none" });
  document.body.append(probe);
  const colour = (name) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };
  const [ink, soft, line] = ["--ink", "--soft", "--line"].map(colour);
  probe.remove();
  const words = { labelColor: soft, titleColor: soft, titleFontWeight: "normal", labelFontSize: 11, titleFontSize: 11 };
  return {
    background: "transparent",
    font: style.fontFamily,
    view: { stroke: null },
    axis: { ...words, gridColor: line, gridOpacity: 0.6, domainColor: line, tickColor: line },
    legend: { ...words, orient: "bottom", columns, symbolLimit: 60, labelLimit: 150, symbolBaseFillColor: soft },
    rule: { color: ink },
    line: { color: ink },
    text: { color: ink },
    range: { category: { scheme: "tableau20" } },
  };
}

let drawing = Promise.resolve();
let drawn = [];

/* One drawing after the other, so that two changes of the theme do not meet in one chart. */
function drawCharts() {
  const specs = dataOf("specs");
  if (specs) drawing = drawing.then(() => draw(specs));
}

async function draw(specs) {
  const options = {
    mode: "vega-lite", renderer: "svg", actions: false, ast: true, defaultStyle: false,
    tooltip: { disableDefaultStyle: true },
  };
  drawn.splice(0).forEach((each) => each.finalize());
  for (const element of document.querySelectorAll(".chart")) {
    const config = chartConfig(Math.max(1, Math.floor(element.clientWidth / 160)));
    drawn.push(await vegaEmbed(element, specs[element.dataset.chart], { ...options, config }));
  }
  document.body.dataset.charts = String(drawn.length);
}

function setUpColumns() {
  const choice = document.getElementById("columns");
  const table = document.getElementById("board");
  if (!choice || !table.querySelector(".minor")) return;
  const box = choice.querySelector("input");
  const apply = () => table.classList.toggle("brief", !box.checked);
  choice.hidden = false;
  box.addEventListener("change", apply);
  apply();
}

/* Numbers sort as numbers, and what is empty stays at the end. */
function compareValues(one, two, sign) {
  if (!one || !two) return Number(!one) - Number(!two);
  const numbers = [Number(one), Number(two)];
  return sign * (numbers.some(Number.isNaN) ? one.localeCompare(two) : numbers[0] - numbers[1]);
}

function setUpSorting() {
  const table = document.getElementById("board");
  if (!table) return;
  const body = table.tBodies[0];
  const headers = [...table.tHead.rows[0].cells];
  headers.forEach((header, column) => {
    header.firstElementChild.addEventListener("click", () => {
      const down = header.getAttribute("aria-sort") === "ascending";
      headers.forEach((other) => other.removeAttribute("aria-sort"));
      header.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.value;
      body.append(...[...body.rows].sort((a, b) => compareValues(value(a), value(b), down ? -1 : 1)));
    });
  });
}
