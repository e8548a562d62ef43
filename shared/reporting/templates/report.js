"use strict";
(function () {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const drawn = [];
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const percent = (share) => (100 * share).toFixed(1) + "%";
  // Bounds are never rounded to more than was found; the sixth digit is floating point's.
  const bound = (share, round) => (round(+(1000 * share).toFixed(6)) / 10).toFixed(1) + "%";
  const atLeast = (share) => bound(share, Math.floor);
  const between = (lower, upper) => " (" + atLeast(lower) + " to " + bound(upper, Math.ceil) + ")";
  const whole = (share) => Math.round(100 * share) + "%";
  const thousands = (n) => Number(n).toLocaleString("en");
  // Tooltips are HTML to ECharts; names are text to us.
  const safe = (text) => {
    const element = document.createElement("span");
    element.textContent = text;
    return element.innerHTML;
  };

  function base() {
    return {
      animation: false,
      textStyle: { fontFamily: "inherit", color: colour("--ink") },
      tooltip: {
        trigger: "axis", confine: true, backgroundColor: colour("--panel"),
        borderColor: colour("--line"), textStyle: { color: colour("--ink") },
      },
      grid: { left: 8, right: 24, top: 36, bottom: 40, containLabel: true },
    };
  }
  function axis(extra) {
    return Object.assign({
      axisLine: { lineStyle: { color: colour("--line") } },
      axisLabel: { color: colour("--quiet") },
      splitLine: { lineStyle: { color: colour("--line") } },
      nameTextStyle: { color: colour("--quiet") },
    }, extra);
  }
  // An even number just below the least of some shares, and even steps from there.
  const below = (least) => {
    const step = least < 0.6 ? 0.1 : 0.05;
    return Math.max(0, Math.floor(least / step + 1e-9) * step);
  };
  const shares = (name, min) => axis({
    type: "value", name: name, min: min, max: 1, interval: min < 0.6 ? 0.2 : min < 0.7 ? 0.1 : 0.05,
    axisLabel: { formatter: whole, hideOverlap: true, color: colour("--quiet") },
  });
  // A line from the lower to the upper bound at each point.
  function whisker(values, tint) {
    return {
      type: "custom", data: values, silent: true, z: 1,
      encode: { x: 0, y: [1, 2] },
      renderItem: function (_, api) {
        const low = api.coord([api.value(0), api.value(1)]);
        const high = api.coord([api.value(0), api.value(2)]);
        return { type: "line", shape: { x1: low[0], y1: low[1], x2: high[0], y2: high[1] },
                 style: { stroke: tint, lineWidth: 2, opacity: 0.55 } };
      },
    };
  }
  function frontier(options) {
    const points = options.points;
    const certified = points.filter((p) => p.coverage > 0);
    return Object.assign(base(), {
      legend: { top: 0, left: 0, itemWidth: 18, itemHeight: 9, textStyle: { color: colour("--ink") } },
      xAxis: axis({ type: "value", name: "agreement asked for (α)", nameLocation: "middle", nameGap: 26,
                    min: below(points[0].alpha), max: 1, interval: points[0].alpha < 0.75 ? 0.1 : 0.05,
                    axisLabel: { formatter: whole, hideOverlap: true, color: colour("--quiet") } }),
      yAxis: shares("", below(Math.min.apply(null, certified.map((p) => Math.min(p.coverage, p.lower))))),
      tooltip: Object.assign(base().tooltip, {
        formatter: (all) => {
          const point = points.find((p) => p.alpha === all[0].value[0]);
          if (!point) { return ""; }
          return "α " + point.alpha + "<br>coverage " + percent(point.coverage) +
            (point.coverage ? "<br>agreement at least " + atLeast(point.lower) : "<br>refused");
        },
      }),
      series: [{
        name: "Coverage", type: "line", data: points.map((p) => [p.alpha, p.coverage]), symbolSize: 8,
        lineStyle: { color: colour("--accent"), width: 2 }, itemStyle: { color: colour("--accent") },
        markLine: { symbol: "none", silent: true, data: [{ xAxis: options.alpha }],
                    label: { formatter: "this task", color: colour("--quiet") },
                    lineStyle: { color: colour("--quiet"), type: "dashed" } },
      }, {
        name: "Agreement at least", type: "line", symbolSize: 6, symbol: "emptyCircle",
        data: certified.map((p) => [p.alpha, p.lower]),
        lineStyle: { color: colour("--second"), width: 2, type: "dashed" },
        itemStyle: { color: colour("--second") },
      }],
    });
  }
  function labels(options) {
    const rows = options.rows.slice().reverse();
    return Object.assign(base(), {
      grid: { left: 8, right: 24, top: 8, bottom: 40, containLabel: true },
      xAxis: Object.assign(shares("coverage", below(Math.min.apply(null, rows.map((r) => r.lower)))), {
        nameLocation: "middle", nameGap: 26,
      }),
      yAxis: axis({ type: "category", data: rows.map((r) => r.name), splitLine: { show: false } }),
      tooltip: Object.assign(base().tooltip, {
        formatter: (all) => {
          const row = rows[all[0].dataIndex];
          return safe(row.label) + "<br>" + thousands(row.n) + " traces<br>coverage " +
            percent(row.coverage) + between(row.lower, row.upper) +
            (row.agreement === null ? "" : "<br>agreement " + percent(row.agreement));
        },
      }),
      series: [
        { type: "line", data: rows.map((r) => r.coverage), symbol: "circle", symbolSize: 9,
          lineStyle: { width: 0 }, itemStyle: { color: colour("--accent") },
          markLine: { symbol: "none", silent: true, label: { show: false },
                      data: options.all === null ? [] : [{ xAxis: options.all }],
                      lineStyle: { color: colour("--quiet"), type: "dashed" } } },
        { type: "custom", data: rows.map((r, i) => [r.lower, i, r.upper]), silent: true, z: 3,
          encode: { x: [0, 2], y: 1 },
          renderItem: function (_, api) {
            const low = api.coord([api.value(0), api.value(1)]);
            const high = api.coord([api.value(2), api.value(1)]);
            return { type: "line", shape: { x1: low[0], y1: low[1], x2: high[0], y2: high[1] },
                     style: { stroke: colour("--accent"), lineWidth: 2, opacity: 0.55 } };
          } },
      ],
    });
  }
  function curve(options) {
    const all = options.measured.concat(options.forecast);
    const least = Math.min.apply(null, all.map((p) => p[2]).concat(options.target));
    const last = options.measured[options.measured.length - 1];
    return Object.assign(base(), {
      xAxis: axis({ type: "log", name: "traces fitted on", nameLocation: "middle", nameGap: 26,
                    min: options.measured[0][0], max: all[all.length - 1][0],
                    axisLabel: { formatter: thousands, hideOverlap: true, color: colour("--quiet") } }),
      yAxis: shares("agreement", below(least)),
      tooltip: Object.assign(base().tooltip, {
        formatter: (found) => {
          const at = found[0].value[0];
          const point = all.find((p) => p[0] === at);
          if (!point) { return ""; }
          const ahead = options.measured.indexOf(point) < 0 ? "forecast for " : "fitted on ";
          return ahead + thousands(at) + " traces<br>agreement " + percent(point[1]) +
            between(point[2], point[3]);
        },
      }),
      series: [
        { type: "line", data: options.measured.map((p) => [p[0], p[1]]), symbolSize: 7,
          lineStyle: { color: colour("--accent"), width: 2 }, itemStyle: { color: colour("--accent") },
          markLine: { symbol: "none", silent: true, data: [{ yAxis: options.target }],
                      label: { formatter: "α", color: colour("--quiet") },
                      lineStyle: { color: colour("--quiet"), type: "dashed" } } },
        { type: "line", data: [last].concat(options.forecast).map((p) => [p[0], p[1]]), symbolSize: 7,
          symbol: "emptyCircle",
          lineStyle: { color: colour("--accent"), width: 2, type: "dashed" },
          itemStyle: { color: colour("--accent") } },
        whisker(all.map((p) => [p[0], p[2], p[3]]), colour("--accent")),
      ],
    });
  }
  const makers = { frontier: frontier, labels: labels, curve: curve };

  function draw() {
    drawn.splice(0).forEach((chart) => chart.dispose());
    document.querySelectorAll("[data-chart]").forEach((element) => {
      const path = element.dataset.chart.split(":");
      const options = path.length > 1 ? charts[path[0]][Number(path[1])] : charts[path[0]];
      const chart = echarts.init(element, null, { renderer: "svg" });
      chart.setOption(makers[options.kind](options));
      drawn.push(chart);
    });
  }
  draw();
  window.addEventListener("resize", () => drawn.forEach((chart) => chart.resize()));
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
})();
