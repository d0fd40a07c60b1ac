const UNKEPT = "This browser keeps nothing for this page: download the labels before you close it.";

/* What is kept of a sheet in this browser; null where it keeps nothing for files. */
function keeper(sheet) {
  const name = `safebasin-review-${sheet}`;
  const tried = (action) => {
    try { return action(); } catch (error) {
      if (!(error instanceof DOMException || error instanceof SyntaxError)) throw error;
      return null;
    }
  };
  return {
    read: () => tried(() => JSON.parse(localStorage.getItem(name) || "{}")) || {},
    write: (value) => tried(() => { localStorage.setItem(name, JSON.stringify(value)); return true; }) === true,
  };
}

/* Rows of CSV with quoted cells, as the download has them. */
function rowsOf(text) {
  const rows = [[]];
  for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^,\r\n"]*))(,|\r?\n|$)/g)) {
    rows.at(-1).push(quoted === undefined ? plain : quoted.replaceAll('""', '"'));
    if (end !== ",") rows.push([]);
  }
  return rows.filter((row) => row.some((cell) => cell));
}

/* A cell of CSV that no program takes for a formula. */
function cellOf(text) {
  return `"${text.replace(/^(?=\s*[=+\-@＝＋－＠])/, "'").replaceAll('"', '""')}"`;
}

class Review {
  constructor(data) {
    this.data = data;
    this.keep = keeper(data.sheet);
    this.names = [...document.querySelectorAll("#labels button")].map((button) => button.dataset.label);
    const kept = this.keep.read();
    this.labels = new Map();
    this.notes = new Map();
    for (const { id } of data.items) {
      if (this.names.includes(kept.labels?.[id])) this.labels.set(id, kept.labels[id]);
      if (typeof kept.notes?.[id] === "string") this.notes.set(id, kept.notes[id]);
    }
    this.at = Math.max(0, data.items.findIndex((item) => item.id === kept.at));
  }

  get item() { return this.data.items[this.at]; }

  /* Whether this browser keeps it. */
  save() {
    const kept = { labels: Object.fromEntries(this.labels), notes: Object.fromEntries(this.notes), at: this.item.id };
    const written = this.keep.write(kept);
    this.setUnsaved(!written);
    return written;
  }

  /* The browser asks before it closes the page, only while labels would be lost. */
  setUnsaved(unsaved) {
    window.onbeforeunload = unsaved && this.labels.size ? (event) => event.preventDefault() : null;
  }

  /* The number of the next response without a label after this one, from the start again at the end; -1 if none. */
  unlabelled() {
    const count = this.data.items.length;
    for (let step = 1; step <= count; step++) {
      const number = (this.at + step) % count;
      if (!this.labels.has(this.data.items[number].id)) return number;
    }
    return -1;
  }

  csv() {
    const said = this.data.items.filter(({ id }) => this.labels.has(id));
    const rows = said.map(({ id }) => [this.data.sheet, id, this.labels.get(id), this.notes.get(id) || ""]);
    return [["sheet", "item", "label", "note"], ...rows].map((row) => row.map(cellOf).join(",") + "\n").join("");
  }

  /* Takes labels from a file; returns how many, and how many rows were not of this sheet or not labelled. */
  load(text) {
    const [header = [], ...rows] = rowsOf(text.replace(/^\ufeff/, ""));
    const [sheet, item, label, note] = ["sheet", "item", "label", "note"].map((name) => header.indexOf(name));
    const known = new Set(this.data.items.map(({ id }) => id));
    const good = rows.filter((row) =>
      row[sheet] === this.data.sheet && known.has(row[item]) && this.names.includes(row[label]));
    for (const row of good) {
      this.labels.set(row[item], row[label]);
      if (row[note]) this.notes.set(row[item], row[note].replace(/^'(?=\s*[=+\-@＝＋－＠])/, ""));
    }
    return [good.length, rows.length - good.length];
  }
}

function byId(id) {
  return document.getElementById(id);
}

function showText(box, text, prefix) {
  box.replaceChildren();
  if (prefix && text.startsWith(prefix)) {
    box.append(make("span", { class: "prefix", title: "forced opening" }, prefix), text.slice(prefix.length));
  } else box.append(text || "⟨empty⟩");
}

function showCount(review) {
  const [done, all] = [review.labels.size, review.data.items.length];
  byId("done").value = done;
  byId("count").textContent = `${done} of ${all} labelled`;
}

function showItem(review) {
  const { id, prompt, prefix, text, said } = review.item;
  byId("place").textContent = `Response ${review.at + 1} of ${review.data.items.length}`;
  byId("number").value = review.at + 1;
  byId("prompt").textContent = prompt || "⟨empty⟩";
  byId("opening").hidden = !prefix;
  byId("opening").replaceChildren("forced opening: ", make("span", { class: "prefix" }, prefix));
  byId("so-far").hidden = !said.length;
  byId("so-far").replaceChildren("said so far:", make("ul", {}, ...said.map(([label, note]) =>
    make("li", {}, make("span", { class: `outcome ${label}` }, label), note ? ` ${note}` : ""))));
  byId("fold").open = byId("unfold").checked;
  showText(byId("response"), text, prefix);
  byId("note").value = review.notes.get(id) || "";
  for (const button of byId("labels").children)
    button.setAttribute("aria-pressed", String(review.labels.get(id) === button.dataset.label));
  showCount(review);
}

function tell(text) {
  byId("status").textContent = text;
}

function setUpReview() {
  const data = dataOf("data");
  if (!data) return;
  const review = new Review(data);
  const keep = () => {
    if (!review.save()) tell(UNKEPT);
  };
  const goTo = (number) => {
    review.at = Math.min(Math.max(number, 0), data.items.length - 1);
    showItem(review);
    keep();
  };
  const label = (name) => {
    if (!byId("fold").open) {
      tell("Show the response first: s.");
      return;
    }
    review.labels.set(review.item.id, name);
    const place = review.at + 1;
    const next = review.unlabelled();
    tell(`Response ${place}: ${name}.${next < 0 ? " All are labelled: download them." : ""}`);
    goTo(next < 0 ? review.at : next);
  };
  const actions = {
    s: () => { byId("fold").open = !byId("fold").open; },
    j: () => goTo(review.at + 1),
    k: () => goTo(review.at - 1),
    n: () => { const next = review.unlabelled(); if (next < 0) tell("All are labelled."); else goTo(next); },
    x: () => { review.labels.delete(review.item.id); showItem(review); keep(); tell("No label."); },
    c: () => byId("note").focus(),
    d: () => {
      const url = URL.createObjectURL(new Blob([review.csv()], { type: "text/csv" }));
      make("a", { href: url, download: `labels-${data.sheet}.csv` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60000);
      review.setUnsaved(false);
      tell(`Downloaded ${review.labels.size} labels.`);
    },
  };
  actions.ArrowRight = actions.j;
  actions.ArrowLeft = actions.k;
  for (const button of byId("labels").children) {
    actions[button.dataset.key] = () => label(button.dataset.label);
    button.addEventListener("click", actions[button.dataset.key]);
  }
  const buttons = { previous: "k", next: "j", unlabelled: "n", download: "d" };
  for (const [id, key] of Object.entries(buttons)) byId(id).addEventListener("click", actions[key]);
  byId("note").addEventListener("input", () => { review.notes.set(review.item.id, byId("note").value); keep(); });
  byId("number").addEventListener("change", () => goTo(Math.trunc(Number(byId("number").value) || 1) - 1));
  byId("unfold").addEventListener("change", () => { byId("fold").open = byId("unfold").checked; });
  byId("load").addEventListener("change", async () => {
    const [file] = byId("load").files;
    if (!file) return;
    const [good, bad] = review.load(await file.text());
    showItem(review);
    keep();
    tell(`${good} labels loaded${bad ? `; ${bad} rows are of another sheet or without a label` : ""}.`);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
    if (event.target.matches("input:not([type=checkbox]), select, textarea")) {
      if (event.key === "Escape" || (event.key === "Enter" && event.target === byId("note"))) event.target.blur();
      return;
    }
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (!Object.hasOwn(actions, key)) return;
    event.preventDefault();
    actions[key]();
  });
  for (const id of ["item", "moves", "files"]) byId(id).hidden = false;
  if (review.labels.size) byId("guide").open = false;
  showItem(review);
  keep();
}

setUpTheme();
setUpReview();
