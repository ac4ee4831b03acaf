"use strict";
// Draws the figures that stand as JSON in the page, and wires their buttons and the tables.
for (const script of document.querySelectorAll("script[data-figure]")) {
  const { data, layout } = JSON.parse(script.textContent);
  const config = { responsive: true, displaylogo: false, displayModeBar: "tools" in script.dataset,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
  Plotly.newPlot(script.dataset.figure, data, layout, config);
}

for (const bar of document.querySelectorAll(".toolbar")) {
  for (const button of bar.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const [restyle, relayout, traces] = JSON.parse(button.dataset.update);
      Plotly.update("plot-" + bar.dataset.for, restyle, relayout, traces ?? undefined);
      for (const other of button.parentElement.children) {
        other.setAttribute("aria-pressed", String(other === button));
      }
    });
  }
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, index) => head.querySelector("button").addEventListener("click", () => {
    const upward = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", upward ? "ascending" : "descending");
    const key = (row) => row.cells[index].dataset.sort;
    const compare = (a, b) => isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b;
    const rows = [...table.tBodies[0].rows].sort((a, b) => compare(key(a), key(b)));
    table.tBodies[0].append(...(upward ? rows : rows.reverse()));
  }));
}
