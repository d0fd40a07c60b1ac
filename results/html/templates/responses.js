const STEP = 25;
const OUTCOMES = ["harmful", "refused", "benign", "incoherent", "unparsed", "unfinished"];
const FOLDED = new Set(["harmful", "unparsed", "unfinished"]); // a verdict that cannot be read is never taken for safe
const MOST_WORDS = 1500;

/* Words and the blanks between them. */
function words(text) {
  return text.split(/(\s+)/).filter((word) => word);
}

/* For each text its words, each with whether it is missing from the longest common subsequence; null if too long. */
function difference(one, two) {
  const [a, b] = [words(one), words(two)];
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a.at(-1 - end) === b.at(-1 - end)) end++;
  const [n, m] = [a.length - start - end, b.length - start - end];
  if (Math.max(n, m) > MOST_WORDS) return null;
  const lengths = Array.from({ length: n + 1 }, () => new Uint16Array(m + 1));
  for (let i = n - 1; i >= 0; i--)
    for (let j = m - 1; j >= 0; j--)
      lengths[i][j] = a[start + i] === b[start + j] ? lengths[i + 1][j + 1] + 1 : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
  const changed = [new Array(a.length).fill(false), new Array(b.length).fill(false)];
  let [i, j] = [0, 0];
  while (i < n || j < m) {
    if (i < n && j < m && a[start + i] === b[start + j]) { i++; j++; }
    else if (j >= m || (i < n && lengths[i + 1][j] >= lengths[i][j + 1])) changed[0][start + i++] = true;
    else changed[1][start + j++] = true;
  }
  return [a.map((word, k) => [word, changed[0][k]]), b.map((word, k) => [word, changed[1][k]])];
}

function said(value, yes, no) {
  return value === null ? [] : [value ? yes : no];
}

function verdictLine(judge, [harmful, refused, coherent, score, categories, raw]) {
  const decides = new Set(judge.decides);
  const parts = [
    ...(decides.has("harm") && harmful === null ? ["could not be parsed"] : said(harmful, "harmful", "not harmful")),
    ...said(refused, "refuses", "does not refuse"),
    ...said(coherent, "coherent", "incoherent"),
  ];
  if (score !== null) parts.push(`P(harmful) ${score}`);
  if (categories) parts.push(categories);
  return make("li", {}, make("strong", {}, judge.name), `: ${parts.join(", ") || "nothing"}`, raw ? ` — “${raw}”` : "");
}

/* The text of a response: its prefix dotted below, words that differ marked. */
function textOf(answer, prefix, marked) {
  const box = make("div", { class: "text", dir: "auto" });
  if (marked) {
    for (const [word, differs] of marked) box.append(differs && word.trim() ? make("mark", {}, word) : word);
  } else if (prefix && answer.text.startsWith(prefix)) {
    box.append(make("span", { class: "prefix", title: "forced opening" }, prefix), answer.text.slice(prefix.length));
  } else box.append(answer.text || "⟨empty⟩");
  return box;
}

function answerOf(data, prompt, answer, names, unfold, marked) {
  const text = textOf(answer, prompt.prefix, marked);
  const folded = make("details", { class: "folded" }, make("summary", {}, `Show text judged ${answer.outcome}`), text);
  folded.open = unfold;
  const disagree = answer.disagree.length ? ` · judges disagree on ${answer.disagree.join(" and ")}` : "";
  return make("div", { class: "answer" },
    make("p", { class: "said" }, make("span", { class: `outcome ${answer.outcome}` }, answer.outcome), ` ${names}${disagree}`),
    FOLDED.has(answer.outcome) ? folded : text,
    make("ul", { class: "verdicts" }, ...answer.verdicts.map((verdict, i) => verdictLine(data.judges[i], verdict))));
}

function itemOf(data, prompt, answers) {
  const title = `${prompt.task}, prompt ${prompt.id}${new Set(data.rows.map((row) => row.model)).size > 1 ? `, ${prompt.model}` : ""}`;
  const item = make("article", { class: "item", "aria-label": title },
    make("h3", {}, title), make("div", { class: "text prompt", dir: "auto" }, prompt.prompt));
  if (prompt.prefix) item.append(make("p", { class: "said" }, "forced opening: ", make("span", { class: "prefix" }, prompt.prefix)));
  item.append(...answers);
  return item;
}

/* What the filters ask for. */
function wanted(form) {
  const value = (name) => form.elements[name].value;
  const ticked = (name) => form.elements[name].checked;
  return {
    task: value("task"), row: value("row"), beside: value("beside"), outcome: value("outcome"),
    text: value("text").toLowerCase(), disagree: ticked("disagree"), differ: ticked("differ"), unfold: ticked("unfold"),
  };
}

function answerPasses(answer, wish) {
  return (!wish.outcome || answer.outcome === wish.outcome) && (!wish.disagree || answer.disagree.length > 0);
}

function textPasses(prompt, answer, wish) {
  return !wish.text || `${prompt.prompt}\n${answer.text}`.toLowerCase().includes(wish.text);
}

/* Prompts that pass, each with the answers to be shown of it. */
function found(data, wish) {
  const prompts = data.prompts.filter((prompt) => !wish.task || prompt.task === wish.task);
  const given = (prompt, row) => prompt.answers.find((answer) => answer.rows.includes(Number(row)));
  if (wish.row && wish.beside) {
    return prompts.map((prompt) => [prompt, [given(prompt, wish.row), given(prompt, wish.beside)]]).filter(([prompt, pair]) =>
      pair[0] && pair[1] && pair.some((answer) => answerPasses(answer, wish)) && pair.some((answer) => textPasses(prompt, answer, wish))
      && (!wish.differ || pair[0].outcome !== pair[1].outcome));
  }
  return prompts.map((prompt) => {
    if (wish.differ && new Set(prompt.answers.map((answer) => answer.outcome)).size < 2) return [prompt, []];
    return [prompt, prompt.answers.filter((answer) => (!wish.row || answer.rows.includes(Number(wish.row)))
      && answerPasses(answer, wish) && textPasses(prompt, answer, wish))];
  }).filter(([, answers]) => answers.length);
}

function shownItem(data, wish, [prompt, answers]) {
  if (wish.row && wish.beside) {
    const marks = difference(answers[0].text, answers[1].text) || [null, null];
    const rows = [wish.row, wish.beside];
    const pair = answers.map((answer, i) => answerOf(data, prompt, answer, data.rows[rows[i]].name, wish.unfold, marks[i]));
    return itemOf(data, prompt, [make("div", { class: "pair" }, ...pair)]);
  }
  const names = (answer) => answer.rows.map((row) => data.rows[row].name).join(", ");
  return itemOf(data, prompt, answers.map((answer) => answerOf(data, prompt, answer, names(answer), wish.unfold, null)));
}

function fillFilters(form, data) {
  const options = (name, first, pairs) => form.elements[name].append(
    make("option", { value: "" }, first), ...pairs.map(([value, text]) => make("option", { value }, text)));
  const rows = data.rows.map((row, i) => [String(i), row.name]);
  options("task", "all", [...new Set(data.prompts.map((prompt) => prompt.task))].map((task) => [task, task]));
  options("row", "all", rows);
  options("beside", "none", rows);
  options("outcome", "all", OUTCOMES.map((outcome) => [outcome, outcome]));
}

/* Filters stand in the address, so that they go along to other pages of responses. */
function restoreFilters(form) {
  if (!location.hash.includes("=")) return;
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    const field = form.elements[name];
    if (!field) continue;
    if (field.type === "checkbox") field.checked = value === "on";
    else if (field.type === "search" || [...field.options].some((option) => option.value === value)) field.value = value;
  }
}

function keepFilters(form) {
  const kept = new URLSearchParams([...new FormData(form)].filter(([, value]) => value)).toString();
  if (kept || location.hash.includes("=")) history.replaceState(null, "", kept ? `#${kept}` : location.pathname);
  for (const link of document.querySelectorAll("a.page")) link.hash = kept;
}

function setUpBrowser() {
  const data = dataOf("data");
  const form = document.getElementById("filters");
  if (!data || !form) return;
  const [count, list, more] = ["count", "list", "more"].map((id) => document.getElementById(id));
  let [items, shown, wish] = [[], 0, null];
  const show = () => {
    list.append(...items.slice(shown, shown + STEP).map((item) => shownItem(data, wish, item)));
    shown = Math.min(shown + STEP, items.length);
    more.hidden = shown >= items.length;
    const answers = items.reduce((sum, [, each]) => sum + each.length, 0);
    const alone = wish.beside && !wish.row ? " Choose a method to put beside it." : "";
    count.textContent = `${items.length} of ${data.prompts.length} prompts, ${answers} different responses; ${shown} prompts shown.${alone}`;
  };
  const filter = () => {
    wish = wanted(form);
    items = found(data, wish);
    shown = 0;
    list.replaceChildren();
    show();
  };
  fillFilters(form, data);
  restoreFilters(form);
  keepFilters(form);
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => { filter(); keepFilters(form); });
  more.addEventListener("click", show);
  filter();
}

setUpTheme();
setUpColumns();
setUpSorting();
setUpBrowser();
