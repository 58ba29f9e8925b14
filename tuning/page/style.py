"""The look of a page, and the few lines of script in it; both are embedded."""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

STYLE = """
:root {
  --paper: #fff; --ink: #1f2933; --muted: #5f6b7a; --rule: #e4e7eb; --link: #0067a3;
  --wash: #f6f8fa; --shade: #1f293326;
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
  color: var(--ink); background: var(--paper);
  -webkit-text-size-adjust: 100%; text-size-adjust: 100%;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181d; --ink: #e3e8ed; --muted: #98a4b1; --rule: #2c343d; --link: #6cb8ea;
    --wash: #1b2127; --shade: #0009;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: clamp(1.5rem, 5vw, 4.5rem) clamp(1rem, 4vw, 2.5rem) 2.5rem;
  max-width: 61.25rem; }
h1, h2 { line-height: 1.2; letter-spacing: -.015em; text-wrap: balance; overflow-wrap: anywhere; }
h1 { margin: 0; font-size: clamp(1.6rem, 1.2rem + 2vw, 2.4rem); font-weight: 650; }
h2 { margin: 0; font-size: 1.3rem; font-weight: 620; }
dl, figure { margin: 0; }
p { margin: 0; max-width: 68ch; text-wrap: pretty; overflow-wrap: anywhere; }
a { color: var(--link); text-decoration-thickness: 1px; text-underline-offset: .2em; }
.subtitle { margin: .6rem 0 0; font-size: 1.1rem; color: var(--muted); }
nav ul { display: flex; flex-wrap: wrap; gap: .35rem 1.5rem; margin: 1.75rem 0 0; padding: 0;
  list-style: none; font-size: .92rem; }
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }
section { margin-top: clamp(2.75rem, 6vw, 4.25rem); scroll-margin-top: 1.5rem; }
section > * + * { margin-top: 1.75rem; }
section > h2 + * { margin-top: 1.25rem; }
section > p + p { margin-top: 1rem; }
.key { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(9.5rem, 100%), 1fr));
  gap: 1.75rem; }
.key div { border-top: 1px solid var(--rule); padding-top: .8rem; }
.key dt { font-size: .88rem; color: var(--muted); }
.key dd { margin: 0; }
.key strong { display: block; font-size: clamp(1.5rem, 1.2rem + 1.5vw, 1.9rem);
  font-weight: 600; line-height: 1.3; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.key small { font-size: .88rem; color: var(--muted); }
/* A shade at the side on which more is hidden: paper scrolls along and covers it at the end. */
.scroll { overflow-x: auto; background:
  linear-gradient(to right, var(--paper) 1rem, transparent) local left / 2.5rem 100%,
  linear-gradient(to left, var(--paper) 1rem, transparent) local right / 2.5rem 100%,
  linear-gradient(to right, var(--shade), transparent) left / .7rem 100%,
  linear-gradient(to left, var(--shade), transparent) right / .7rem 100%;
  background-repeat: no-repeat; }
.long { max-height: 36rem; overflow-y: auto; }
.long thead th { position: sticky; top: 0; z-index: 1; background: var(--paper);
  box-shadow: inset 0 -1px var(--muted); }
.code { position: relative; }
pre { margin: 0; padding: 1rem 1.15rem; background: var(--wash); border-radius: .5rem;
  font: .88rem/1.55 ui-monospace, "Cascadia Mono", Menlo, Consolas, "Liberation Mono", monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.code button { position: absolute; top: .6rem; right: .6rem; padding: .2rem .7rem; cursor: pointer;
  font: inherit; font-size: .82rem; color: var(--muted); background: var(--paper);
  border: 1px solid var(--rule); border-radius: .4rem; }
.code button:hover { color: var(--ink); border-color: var(--muted); }
table { width: 100%; border-collapse: collapse; font-size: .92rem; line-height: 1.45;
  font-variant-numeric: tabular-nums; }
caption { padding-bottom: .6rem; text-align: left; color: var(--muted); }
th, td { padding: .5rem 1.5rem .5rem 0; text-align: left; vertical-align: baseline;
  border-bottom: 1px solid var(--rule); }
th:last-child, td:last-child { padding-right: 0; }
thead th { border-bottom-color: var(--muted); white-space: nowrap; }
th.number, td.number { text-align: right; white-space: nowrap; }
td.wide { min-width: 17rem; overflow-wrap: anywhere; white-space: pre-line; }
tbody tr:hover { background: var(--wash); }
th button { all: unset; position: relative; cursor: pointer; font-weight: 600; }
button:focus-visible, .scroll:focus-visible, a:focus-visible {
  outline: 2px solid var(--link); outline-offset: 3px; border-radius: 2px; }
th button::after { content: "\\2195"; position: absolute; left: calc(100% + .25em); opacity: 0; }
th.number button::after { left: auto; right: calc(100% + .25em); }
th button:hover::after, th button:focus-visible::after { opacity: .5; }
th[aria-sort] button::after { opacity: 1; }
th[aria-sort="ascending"] button::after { content: "\\2191"; }
th[aria-sort="descending"] button::after { content: "\\2193"; }
/* On a phone a figure scrolls sideways before its labels get too small to read. */
img { display: block; max-width: max(100%, 36rem); height: auto; }
figcaption { margin-top: .7rem; font-size: .88rem; color: var(--muted); max-width: 68ch; }
/* On a dark page a figure is turned to light ink on the page itself: black, screened, adds nothing,
   and the half turn gives inverted colours their hue back. */
@media (prefers-color-scheme: dark) {
  figure .scroll { background: var(--paper); isolation: isolate; }
  img { filter: invert(1) hue-rotate(180deg); mix-blend-mode: screen; }
  img.photograph { padding: .9rem; background: #fff; border-radius: .6rem;
    filter: brightness(.93); mix-blend-mode: normal; }
}
footer { margin-top: 4.5rem; padding-top: 1.1rem; border-top: 1px solid var(--rule);
  font-size: .85rem; color: var(--muted); }
footer p { margin: 0; }
@media print {
  nav, .code button { display: none; }
  .long { max-height: none; }
  figure, tr, .key div { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""

SCRIPT = """
const key = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent;
const compare = new Intl.Collator(undefined, { numeric: true }).compare;
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.parentNode, body = head.closest("table").tBodies[0];
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const isNumber = head.classList.contains("number");
    const order = (a, b) => isNumber ? a - b : compare(a, b);
    body.append(...[...body.rows].sort((first, second) => {
      const a = key(first, head.cellIndex), b = key(second, head.cellIndex);
      if (a === "" || b === "") return (a === "") - (b === "");
      return sign * order(a, b);
    }));
  });
}
for (const code of document.querySelectorAll(".code")) {
  if (!navigator.clipboard) break;
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(code.querySelector("pre").textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  code.append(button);
}
"""
