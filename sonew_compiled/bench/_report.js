"use strict";
{
  const table = document.getElementById("rows");
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...body.rows];
  const text = (row, column) => row.cells[column].textContent;

  // Words are set to the left, and long ones are broken.
  const isNumber = (cell) => /^[\d.,]+( %)?( \(\d\))?$/.test(cell);
  heads.forEach((head, column) => {
    const cells = rows.map((row) => text(row, column)).filter(Boolean);
    if (cells.every(isNumber)) return;
    [head, ...rows.map((row) => row.cells[column])].forEach((cell) => cell.classList.add("words"));
    if (cells.some((cell) => cell.length > 40)) rows.forEach((row) => row.cells[column].classList.add("long"));
  });

  // A column is sorted by numbers if its cells are numbers, and empty cells come last either way.
  const order = new Intl.Collator("en", { numeric: true });
  const number = (cell) => parseFloat(cell.replaceAll(",", ""));
  const sort = (column, sign) => {
    const numeric = rows.every((row) => !text(row, column) || isNumber(text(row, column)));
    const compare = numeric ? (a, b) => number(a) - number(b) : order.compare;
    rows.sort((one, other) => {
      const [a, b] = [text(one, column), text(other, column)];
      return !a || !b ? !a - !b : sign * compare(a, b);
    });
    body.append(...rows);
    heads.forEach((head, index) => {
      if (index === column) head.ariaSort = sign > 0 ? "ascending" : "descending";
      else head.removeAttribute("aria-sort");
    });
  };
  heads.forEach((head, column) =>
    head.querySelector("button").addEventListener("click", () => sort(column, head.ariaSort === "ascending" ? -1 : 1)));

  const boxes = [...document.querySelectorAll("#columns input")];
  const choose = (box) => {
    for (const row of [table.tHead.rows[0], ...rows]) row.cells[box.value].hidden = !box.checked;
  };
  boxes.forEach((box) => {
    choose(box);
    box.addEventListener("change", () => choose(box));
  });

  const charts = JSON.parse(document.getElementById("charts").textContent);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const filter = document.getElementById("filter");
  // Named one by one: Plotly's own choice of buttons has one that sends the chart to a server.
  const buttons = [["toImage", "zoom2d", "pan2d", "resetScale2d"]];
  const config = { responsive: true, displaylogo: false, modeBarButtons: buttons, plotlyServerURL: "" };

  // Beside the chart there is room for a legend only on a wide page.
  const draw = () => {
    const shown = new Set(rows.filter((row) => !row.hidden).map((row) => Number(row.dataset.line)));
    for (const { name, figure } of charts) {
      const place = document.getElementById(name);
      const data = figure.data.filter((trace) => trace.meta < 0 || shown.has(trace.meta));
      const isNarrow = place.clientWidth < 560;
      const isBars = !figure.layout.showlegend;
      const entries = data.length;
      const axis = { tickformat: ",.4~r", gridcolor: colour("--rule"), zerolinecolor: colour("--rule"), automargin: true };
      const layout = {
        ...figure.layout,
        xaxis: { ...axis, nticks: isNarrow ? 4 : 10, ...figure.layout.xaxis },
        yaxis: { ...axis, ...figure.layout.yaxis },
        height: isBars ? 100 + (isNarrow ? 36 : 26) * entries : isNarrow ? 350 + 19 * entries : Math.max(420, 110 + 19 * entries),
        margin: { l: 10, r: isBars ? 60 : 10, t: 32, b: 10 },
        font: { color: colour("--ink"), family: "system-ui, sans-serif", size: isNarrow ? 11 : 12 },
        paper_bgcolor: colour("--paper"),
        plot_bgcolor: colour("--paper"),
        hoverlabel: { namelength: -1 },
        legend: isNarrow ? { orientation: "h", yref: "container", y: 0, yanchor: "bottom", x: 0 } : { x: 1.02, y: 1 },
      };
      // The name of a bar is its label, in two lines where there is little room.
      const broken = (trace) => ({ ...trace, y: trace.y.map((label) => label.replace(", ", "<br>")) });
      Plotly.react(place, isBars && isNarrow ? data.map(broken) : data, layout, config);
    }
  };

  const count = document.getElementById("count");
  const narrow = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach((row) => {
      const said = [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
      row.hidden = !words.every((word) => said.includes(word));
    });
    count.value = `${rows.filter((row) => !row.hidden).length} of ${rows.length} lines`;
    draw();
  };
  filter.addEventListener("input", narrow);
  narrow();

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (width !== innerWidth) draw();
    width = innerWidth;
  });
}
