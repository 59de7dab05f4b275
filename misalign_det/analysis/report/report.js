// The report's charts, filters and image viewer. Reads the JSON of page_data.py.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];
  const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross"];
  const DASHES = ["solid", "dash", "dashdot", "dot", "longdash", "longdashdot"];
  const PATTERNS = ["", "/", "x", ".", "-", "+"];
  // Of correct, redundant, error and background boxes.
  const KINDS = [
    { color: "#0072B2", symbol: "circle", dash: "none" },
    { color: "#E69F00", symbol: "square", dash: "8 3" },
    { color: "#D55E00", symbol: "x", dash: "3 3" },
    { color: "#CC79A7", symbol: "triangle-down", dash: "1 4" },
  ];
  const MOST_IMAGES = 24;
  const element = (id) => document.getElementById(id);
  const cyclic = (values, index) => values[index % values.length];

  // Chosen by the reader: indices or null, and the least score.
  const chosen = { label: null, size: null, threshold: 0, box: null, image: null, detector: null };
  const passes = (label, size, score) =>
    (chosen.label === null || label === chosen.label) &&
    (chosen.size === null || size === chosen.size) && score >= chosen.threshold - 1e-9;

  function theme(printing) {
    const style = getComputedStyle(document.documentElement);
    const value = (name) => style.getPropertyValue(name).trim();
    return printing
      ? { text: "#000000", soft: "#444444", line: "#bbbbbb", card: "#ffffff" }
      : { text: value("--text"), soft: value("--soft"), line: value("--line"), card: value("--card") };
  }

  function layout(colors, x, y, more) {
    const axis = (title, range) => ({
      title: { text: title }, range, gridcolor: colors.line, zerolinecolor: colors.line,
      linecolor: colors.soft, automargin: true,
    });
    return {
      font: { color: colors.text, size: 12 }, paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 50, r: 12, t: 30, b: 42 },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colors.soft, activecolor: colors.text },
      xaxis: axis(...x), yaxis: axis(...y), hovermode: "closest",
      hoverlabel: { bgcolor: colors.card, font: { color: colors.text } },
      legend: { orientation: "h", y: -0.22, yanchor: "top", itemsizing: "constant" }, ...more,
    };
  }

  const CONFIG = { responsive: true, displaylogo: false,
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };

  function draw(id, traces, pageLayout) {
    return Plotly.react(id, traces, pageLayout, CONFIG);
  }

  function scatterTraces(detector) {
    const { dots } = detector;
    const traces = KINDS.slice(0, 3).map((kind, number) => ({
      type: "scatter", mode: "markers", name: data.kinds[number], x: [], y: [], customdata: [],
      marker: { color: kind.color, symbol: kind.symbol, size: 5, opacity: 0.55 },
      hovertemplate: "%{customdata[2]}, %{customdata[3]}<br>score %{y}, IoU %{x}<br>%{customdata[4]}",
    }));
    dots.box.forEach((box, i) => {
      if (!passes(dots.label[i], dots.size[i], dots.score[i])) return;
      const image = data.images[dots.image[i]];
      const trace = traces[Math.min(dots.kind[i], 2)];
      trace.x.push(dots.iou[i]);
      trace.y.push(dots.score[i]);
      trace.customdata.push([box, dots.image[i], data.classes[dots.label[i]],
        data.sizes[dots.size[i]], image ? image.file : "its image is not in this file"]);
    });
    return traces;
  }

  function drawScatter(colors) {
    data.detectors.forEach((detector, number) => {
      const id = `scatter-${number}`;
      const traces = scatterTraces(detector);
      const shown = traces.reduce((sum, trace) => sum + trace.x.length, 0);
      draw(id, traces, layout(colors, ["IoU with the object", [0, 1.02]], ["score", [0, 1.02]],
        { uirevision: "kept" }));
      const drawn = detector.dots.box.length;
      element(`shown-${number}`).textContent = `${shown} of ${drawn} marks are in the selection` +
        (drawn < detector.overlapping ? `, a sample of ${detector.overlapping} boxes.` : ".");
    });
  }

  function drawReliability(colors) {
    const traces = [{ type: "scatter", mode: "lines", x: [0, 1], y: [0, 1], name: "calibrated",
      line: { color: "#999999", width: 1 }, hoverinfo: "skip" }];
    data.detectors.forEach(({ name, reliability }, i) => traces.push({
      type: "scatter", mode: "lines+markers", name, x: reliability.score, y: reliability.iou,
      customdata: reliability.boxes, line: { color: cyclic(COLORS, i), dash: cyclic(DASHES, i) },
      marker: { symbol: cyclic(SYMBOLS, i), size: 8 },
      hovertemplate: "score %{x}, IoU %{y}<br>%{customdata} boxes",
    }));
    draw("reliability", traces, layout(colors, ["mean score", [0, 1.02]],
      ["mean IoU, 0 for a false positive", [0, 1.02]]));
  }

  function drawHeadroom(colors) {
    const number = data.detectors.length;
    const traces = data.detectors.map(({ name, headroom }, i) => ({
      type: "scatter", mode: "markers", name, x: headroom.map((row) => row[0]),
      // The detectors of a class lie below one another.
      y: headroom.map((_, label) => label + (0.6 * (i - (number - 1) / 2)) / number),
      customdata: data.classes,
      marker: { color: cyclic(COLORS, i), symbol: cyclic(SYMBOLS, i), size: 9 },
      error_x: { type: "data", symmetric: false, color: cyclic(COLORS, i), thickness: 1.5,
        array: headroom.map((row) => (row[2] === null ? 0 : row[2] - row[0])),
        arrayminus: headroom.map((row) => (row[1] === null ? 0 : row[0] - row[1])) },
      hovertemplate: "%{customdata}: %{x:.1f} AP",
    }));
    element("headroom").style.height = `${130 + (16 + 14 * number) * data.classes.length}px`;
    const place = layout(colors, ["headroom in AP, 95 % interval"],
      ["", [data.classes.length - 0.5, -0.5]], { showlegend: true,
        legend: { orientation: "h", y: 1.01, yanchor: "bottom" }, margin: { l: 50, r: 12, t: 60, b: 42 } });
    Object.assign(place.yaxis, { tickvals: data.classes.map((_, label) => label), ticktext: data.classes,
      zeroline: false, showgrid: false });
    Object.assign(place.xaxis, { zeroline: true, zerolinecolor: colors.soft });
    draw("headroom", traces, place);
  }

  function drawGaps(colors) {
    if (!element("gaps")) return;
    const levels = (gaps) => Object.keys(gaps).filter((group) => group.startsWith("stride"));
    const groups = [...new Set(data.detectors.flatMap(({ gaps }) => levels(gaps)))];
    const stride = (group) => Number(group.split(" ")[1]);
    groups.sort((a, b) => stride(a) - stride(b));
    const traces = data.detectors.map(({ name, gaps }, i) => ({
      type: "bar", name, x: groups, y: groups.map((group) => gaps[group] ?? null),
      marker: { color: cyclic(COLORS, i), pattern: { shape: cyclic(PATTERNS, i) } },
      hovertemplate: "%{x}: %{y:.2f} strides",
    }));
    draw("gaps", traces, layout(colors, ["level"], ["median gap in strides"],
      { barmode: "group", showlegend: true }));
  }

  function drawAll(printing = false) {
    const colors = theme(printing);
    drawScatter(colors);
    drawReliability(colors);
    drawHeadroom(colors);
    drawGaps(colors);
  }

  function countKinds() {
    const rows = element("kinds").tBodies[0].rows;
    data.detectors.forEach((detector, number) => {
      const counts = data.kinds.map(() => 0);
      detector.counts.forEach(([label, size, kind, step, boxes]) => {
        if (passes(label, size, step * data.step)) counts[kind] += boxes;
      });
      const total = counts.reduce((sum, count) => sum + count, 0);
      [total, ...counts].forEach((count, i) => { rows[number].cells[i + 1].textContent = count; });
    });
  }

  const SVG = "http://www.w3.org/2000/svg";
  function shape(kind, attributes, parent) {
    const made = document.createElementNS(SVG, kind);
    Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
    return parent.appendChild(made);
  }

  function rectangle([x0, y0, x1, y1], color, dash, parent) {
    return shape("rect", { x: x0, y: y0, width: Math.max(0, x1 - x0), height: Math.max(0, y1 - y0),
      stroke: color, "stroke-dasharray": dash }, parent);
  }

  function imageFigure(image, detector) {
    const figure = document.createElement("figure");
    const svg = shape("svg", { class: "boxes", viewBox: `0 0 ${image.width} ${image.height}` }, figure);
    if (image.picture) shape("image", { href: image.picture, width: image.width, height: image.height }, svg);
    image.gts.filter((gt) => chosen.label === null || gt[4] === chosen.label)
      .forEach((gt) => rectangle(gt, "#009E73", "10 3 2 3", svg));
    // Without a threshold the best boxes, as many as there are objects: all would hide the image.
    const best = image.boxes[detector].filter((box) => passes(box[4], box[8], box[5]))
      .sort((a, b) => b[5] - a[5]);
    const most = chosen.threshold > 0 ? best.length : Math.max(5, image.gts.length);
    const boxes = best.slice(0, most);
    const marked = image.boxes[detector].find((box) => box[9] === chosen.box);
    if (detector === chosen.detector && marked && !boxes.includes(marked)) boxes.push(marked);
    boxes.slice().reverse().forEach((box) => {
      const kind = KINDS[box[7]];
      const drawn = rectangle(box, kind.color, kind.dash, svg);
      if (box === marked && detector === chosen.detector) drawn.classList.add("chosen");
      const title = shape("title", {}, drawn);
      title.textContent = `${data.classes[box[4]]}, ${data.kinds[box[7]]}: score ${box[5]}, IoU ${box[6]}`;
      const size = Math.max(8, image.width / 40);
      const text = shape("text", { x: box[0] + 2, y: Math.max(size, box[1] - 2), "font-size": size }, svg);
      text.textContent = box[5].toFixed(2);
    });
    const caption = figure.appendChild(document.createElement("figcaption"));
    caption.textContent = `${data.detectors[detector].name}, ${image.file}: ` +
      (most < best.length ? `the ${most} best of ${best.length} boxes` : `${best.length} boxes`);
    return figure;
  }

  function showImages() {
    const viewer = element("viewer");
    const place = element("viewer-images");
    place.replaceChildren();
    if (chosen.image === null && chosen.label === null) {
      viewer.classList.add("empty");
      element("viewer-note").textContent = "Click on a mark above, or on a class below.";
      return;
    }
    viewer.classList.remove("empty");
    const one = chosen.image !== null;
    const ids = one ? [chosen.image] : data.order[chosen.label];
    const known = ids.filter((id) => data.images[id]);
    known.slice(0, MOST_IMAGES).forEach((id) => data.detectors.forEach((_, detector) =>
      place.appendChild(imageFigure(data.images[id], detector))));
    const note = one ? "The image of the mark, whose box is drawn thick."
      : `Images with ${data.classes[chosen.label]}, those with the most wrongly ranked boxes first.`;
    element("viewer-note").textContent = known.length ? note
      : "This image is not in the file, which holds a selection to stay small.";
  }

  function update() {
    drawScatter(theme(false));
    countKinds();
    showImages();
  }

  function chooseClass(label) {
    Object.assign(chosen, { label, box: null, image: null, detector: null });
    element("class").value = label === null ? "" : String(label);
    update();
  }

  function listen() {
    const fill = (id, names) => names.forEach((name, i) => element(id).add(new Option(name, i)));
    fill("class", data.classes);
    fill("size", data.sizes);
    const number = (text) => (text === "" ? null : Number(text));
    element("class").addEventListener("change", (event) => chooseClass(number(event.target.value)));
    element("size").addEventListener("change", (event) => {
      chosen.size = number(event.target.value);
      update();
    });
    element("threshold").addEventListener("input", (event) => {
      chosen.threshold = Number(event.target.value);
      element("threshold-value").textContent = chosen.threshold.toFixed(2);
      update();
    });
    document.querySelectorAll("button[data-class]").forEach((button) =>
      button.addEventListener("click", () => {
        chooseClass(Number(button.dataset.class));
        element("viewer").scrollIntoView();
      }));
    data.detectors.forEach((_, detector) => element(`scatter-${detector}`).on("plotly_click", (event) => {
      const [box, image] = event.points[0].customdata;
      Object.assign(chosen, { box, image, detector });
      showImages();
      element("viewer").scrollIntoView();
    }));
    element("headroom").on("plotly_click", (event) => {
      chooseClass(data.classes.indexOf(event.points[0].customdata));
      element("viewer").scrollIntoView();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawAll());
    addEventListener("beforeprint", () => drawAll(true));
    addEventListener("afterprint", () => drawAll());
  }

  document.querySelectorAll("image[data-image]").forEach((picture) =>
    picture.setAttribute("href", data.images[picture.dataset.image].picture));
  drawAll();
  countKinds();
  listen();
})();
