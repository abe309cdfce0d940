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

  function layout(plot) {
    const axis = { gridcolor: colour('--line'), zeroline: false, automargin: true };
    const log = plot.key.includes('loss') && logarithmic.checked;
    return {
      margin: { l: 44, r: 8, t: 8, b: 36 },
      paper_bgcolor: 'rgba(0,0,0,0)',
      plot_bgcolor: 'rgba(0,0,0,0)',
      font: { color: colour('--text'), size: 11 },
      showlegend: false,
      hovermode: 'closest',
      hoverlabel: { namelength: -1 },
      xaxis: { ...axis, title: { text: plot.unit, standoff: 4 } },
      yaxis: { ...axis, type: log ? 'log' : 'linear' },
    };
  }

  const options = { responsive: true, displaylogo: false };

  function draw(place) {
    const plot = data.plots[place.dataset.plot];
    Plotly.react(place, traces(plot), layout(plot), options);
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

  // On paper everything is open and light; afterwards it is as before.
  let before = null;
  addEventListener('beforeprint', () => {
    const closed = [...document.querySelectorAll('details:not([open])')];
    before = { closed, theme: root.dataset.theme };
    for (const details of closed) details.open = true;
    root.classList.add('printing');
    setTheme('light');
    drawInside(document.body);
    for (const place of drawn) Plotly.Plots.resize(place);
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
