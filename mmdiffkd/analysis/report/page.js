'use strict';
{
  const data = JSON.parse(document.getElementById('data').textContent);
  const root = document.documentElement;
  const drawn = new Set();
  const hidden = new Set();
  const logarithmic = document.getElementById('logarithmic');

  // What Plotly takes for markup in the name of a run.
  const escaped = (text) =>
    text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');

  const colour = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  function traces(plot) {
    return plot.curves.map((curve) => {
      const run = data.runs[curve.run];
      const own = curve.teacher === null;
      return {
        x: curve.x,
        y: curve.y,
        name: escaped(own ? run.label : `${run.label}, ${curve.teacher}`),
        mode: curve.x.length < 30 && own ? 'lines+markers' : 'lines',
        line: { color: run.colour, width: own ? 2 : 1.5, dash: own ? run.dash : 'dash' },
        marker: { size: 5 },
        visible: !hidden.has(curve.run),
        hovertemplate: `%{y:.5g} at ${plot.unit} %{x}`,
      };
    });
  }

  const common = () => ({
    margin: { l: 44, r: 8, t: 8, b: 36 },
    paper_bgcolor: 'rgba(0,0,0,0)',
    plot_bgcolor: 'rgba(0,0,0,0)',
    font: { color: colour('--text'), size: 11 },
    showlegend: false,
    hovermode: 'closest',
    hoverlabel: { namelength: -1 },
  });

  function layout(plot) {
    const axis = { gridcolor: colour('--line'), zeroline: false, automargin: true };
    const log = plot.key.includes('loss') && logarithmic.checked;
    return {
      ...common(),
      xaxis: { ...axis, title: { text: plot.unit, standoff: 4 } },
      yaxis: { ...axis, type: log ? 'log' : 'linear', title: { text: plot.measure, standoff: 4 } },
    };
  }

  // Names may be long, alike, or numbers: the axes have indices.
  function heatmap(plot) {
    const short = (name) => escaped(name.length > 18 ? `${name.slice(0, 16)}...` : name);
    const axis = (names, title) => ({
      title: { text: escaped(title), standoff: 6 },
      tickvals: names.map((_, index) => index),
      ticktext: names.map(short),
      automargin: true,
      showgrid: false,
      zeroline: false,
    });
    const longest = Math.max(...plot.columns.map((name) => Math.min(name.length, 18)));
    const trace = {
      type: 'heatmap',
      z: plot.values,
      customdata: plot.rows.map((row, i) =>
        plot.columns.map((column, j) => [escaped(row), escaped(column), plot.texts[i][j]]),
      ),
      hovertemplate:
        `${escaped(plot.titles[1])} %{customdata[0]}, ${escaped(plot.titles[0])} %{customdata[1]}: ` +
        '%{customdata[2]}<extra></extra>',
      texttemplate: plot.columns.length > 12 ? '' : plot.largest > 1 ? '%{z:.0f}' : '%{z:.2f}',
      colorscale: 'Viridis',
      zmin: 0,
      zmax: plot.largest,
      showscale: false,
      xgap: 1,
      ygap: 1,
    };
    return [
      [trace],
      {
        ...common(),
        // Plotly leaves out a slanted name that would end beyond the plot.
        xaxis: { ...axis(plot.columns, plot.titles[0]), tickangle: longest * plot.columns.length > 40 ? -45 : 0 },
        yaxis: { ...axis(plot.rows, plot.titles[1]), autorange: 'reversed' },
      },
    ];
  }

  const options = { responsive: true, displayModeBar: false };

  function draw(place) {
    const plot = data.plots[place.dataset.plot];
    const [shown, arranged] =
      plot.kind === 'heatmap' ? heatmap(plot) : [traces(plot), layout(plot)];
    // Of itself Plotly takes the new width only after the page is printed.
    if (root.classList.contains('printing')) arranged.width = place.clientWidth;
    Plotly.react(place, shown, arranged, options);
    drawn.add(place);
  }

  // A plot in something that is closed has no size: it is drawn when opened.
  function drawInside(element) {
    for (const place of element.querySelectorAll('.plot')) {
      const closed = place.closest('details:not([open])');
      if (!closed && !drawn.has(place)) draw(place);
    }
  }

  function drawAgain() {
    for (const place of drawn) draw(place);
  }

  function setTheme(theme) {
    root.dataset.theme = theme;
    drawAgain();
  }

  const prefersDark = matchMedia('(prefers-color-scheme: dark)').matches;
  root.dataset.theme = prefersDark ? 'dark' : 'light';
  document.getElementById('theme').addEventListener('click', () =>
    setTheme(root.dataset.theme === 'dark' ? 'light' : 'dark'),
  );

  for (const box of document.querySelectorAll('.shown')) {
    box.addEventListener('change', () => {
      const run = Number(box.dataset.run);
      if (box.checked) hidden.delete(run);
      else hidden.add(run);
      drawAgain();
    });
  }
  if (logarithmic) logarithmic.addEventListener('change', drawAgain);
  for (const details of document.querySelectorAll('details')) {
    details.addEventListener('toggle', () => drawInside(details));
  }

  // A click on a heading sorts by it, another one the other way round.
  for (const heading of document.querySelectorAll('.sortable thead th')) {
    heading.addEventListener('click', () => {
      const body = heading.closest('table').tBodies[0];
      const column = heading.cellIndex;
      const down = heading.dataset.down !== 'true';
      heading.dataset.down = down;
      const key = (row) => row.cells[column].textContent;
      // What is missing comes last or first, never between.
      const figure = (text) => (text === '' ? -1e9 : Number(text));
      const compare = (a, b) =>
        column === 0 ? key(a).localeCompare(key(b)) : figure(key(a)) - figure(key(b));
      const rows = [...body.rows].sort((a, b) => (down ? compare(a, b) : compare(b, a)));
      body.append(...rows);
    });
  }

  // On paper everything is open and light; afterwards it is as before.
  let before = null;
  addEventListener('beforeprint', () => {
    const closed = [...document.querySelectorAll('details:not([open])')];
    before = { closed, theme: root.dataset.theme };
    for (const details of closed) details.open = true;
    root.classList.add('printing');
    setTheme('light');
    drawInside(document.body);
  });
  addEventListener('afterprint', () => {
    if (before === null) return;
    for (const details of before.closed) details.open = false;
    root.classList.remove('printing');
    setTheme(before.theme);
    for (const place of drawn) {
      if (!place.closest('details:not([open])')) Plotly.Plots.resize(place);
    }
    before = null;
  });

  drawInside(document.body);
}
