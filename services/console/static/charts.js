// Charts, drawn by ECharts in the page's own colours. Each has a table beside it.
"use strict";
(() => {
  // A megabyte that a page can be read without: asked for when a chart comes into view, once the
  // page is there.
  const library = document.currentScript.dataset.echarts;
  let loading = null;

  function loaded() {
    loading ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = library;
      script.onload = resolve;
      script.onerror = () => {
        loading = null;
        reject(new Error("the charts' library did not come"));
      };
      const add = () => document.head.append(script);
      if (document.readyState === "complete") add();
      else addEventListener("load", add, { once: true });
    });
    return loading;
  }

  const drawn = new Map();
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function palette() {
    return {
      handled: colour("--t-handled"), audited: colour("--t-audited"),
      deferred: colour("--t-deferred"), line: colour("--t-line"), text: colour("--t-text"),
      muted: colour("--t-muted"), grid: colour("--t-grid"), surface: colour("--t-surface"),
      bad: colour("--t-bad"),
    };
  }

  const percent = (share, digits = 1) => share === null ? "–" : `${(100 * share).toFixed(digits)}%`;
  // Bounds are never rounded to more than was found; the sixth digit is floating point's.
  const bound = (share, digits, round) =>
    `${(round(+(100 * share * 10 ** digits).toFixed(6)) / 10 ** digits).toFixed(digits)}%`;
  const atLeast = (share, digits = 1) => bound(share, digits, Math.floor);
  const between = (lower, upper) => `${atLeast(lower)} to ${bound(upper, 1, Math.ceil)}`;
  const count = (n) => Math.round(n).toLocaleString("en-GB").replaceAll(",", "\u2009");

  function common(c) {
    return {
      animation: false,
      textStyle: { fontFamily: getComputedStyle(document.body).fontFamily, color: c.text },
      aria: { enabled: false },
      grid: { left: 8, right: 8, top: innerWidth < 600 ? 60 : 40, bottom: 4, containLabel: true },
      legend: {
        top: 0, left: 0, itemWidth: 14, itemHeight: 10, textStyle: { color: c.text },
        inactiveColor: c.muted,
      },
      tooltip: {
        trigger: "axis", renderMode: "richText", confine: true, backgroundColor: c.surface,
        borderColor: c.grid, textStyle: { color: c.text, fontSize: 13 },
        axisPointer: { lineStyle: { color: c.muted }, shadowStyle: { opacity: 0.12 } },
      },
    };
  }

  function axis(c, more) {
    return {
      axisLine: { lineStyle: { color: c.grid } }, axisTick: { show: false },
      axisLabel: { color: c.muted, hideOverlap: true }, splitLine: { lineStyle: { color: c.grid } },
      nameTextStyle: { color: c.muted, align: "left" }, ...more,
    };
  }

  const shares = (c, more) => axis(c, {
    type: "value", axisLabel: { color: c.muted, formatter: (v) => percent(v, 0) }, ...more,
  });

  // An axis of shares from just below the lowest of them up to 1, with even ticks.
  function upTo1(c, lowest, more) {
    const step = lowest < 0.6 ? 0.1 : lowest < 0.92 ? 0.05 : 0.02;
    const min = Math.max(0, Math.floor(lowest / step + 1e-9) * step);
    return shares(c, { min, max: 1, interval: step, ...more });
  }

  function days(c, values) {
    const bar = (name, key) => ({
      name, type: "bar", stack: "requests", barMaxWidth: 44, itemStyle: { color: c[key] },
      data: values.map((day) => day[key]),
    });
    return {
      ...common(c),
      tooltip: {
        ...common(c).tooltip, axisPointer: { type: "shadow" },
        formatter: ([{ dataIndex: i }]) => {
          const day = values[i];
          return `${day.day}\n${count(day.requests)} requests, coverage ${percent(day.coverage)}\n`
            + `handled ${count(day.handled)} · audited ${count(day.audited)} · deferred ${count(day.deferred)}`;
        },
      },
      xAxis: axis(c, { type: "category", data: values.map((day) => day.day.slice(5)) }),
      yAxis: [
        axis(c, { type: "value", minInterval: 1 }),
        shares(c, { min: 0, max: 1, splitLine: { show: false } }),
      ],
      series: [
        bar("Handled", "handled"), bar("Audited", "audited"), bar("Deferred", "deferred"),
        {
          name: "Coverage", type: "line", yAxisIndex: 1, symbol: "circle", symbolSize: 7,
          lineStyle: { color: c.line, width: 2 }, itemStyle: { color: c.line },
          data: values.map((day) => day.coverage),
        },
      ],
    };
  }

  // An interval as a vertical line with ends.
  function whisker(c) {
    return (params, api) => {
      const [x, low] = api.coord([api.value(0), api.value(1)]);
      const high = api.coord([api.value(0), api.value(2)])[1];
      const style = { stroke: c.handled, lineWidth: 1.5 };
      const line = (x1, y1, x2, y2) => ({ type: "line", shape: { x1, y1, x2, y2 }, style });
      return {
        type: "group",
        children: [line(x, low, x, high), line(x - 5, low, x + 5, low), line(x - 5, high, x + 5, high)],
      };
    };
  }

  function agreement(c, { days: values, alpha }) {
    const known = values.map((day, i) => ({ i, ...day.agreement })).filter((each) => each.n);
    const lowest = Math.min(alpha, ...known.map((each) => each.lower));
    return {
      ...common(c),
      legend: { ...common(c).legend, data: ["Agreement of the audits", "Asked for (α)"] },
      tooltip: {
        ...common(c).tooltip,
        formatter: ([{ dataIndex: i }]) => {
          const day = values[i];
          const { value, lower, upper, n } = day.agreement;
          return n
            ? `${day.day}\nagreement ${percent(value)} on ${count(n)} audits\n95%: ${between(lower, upper)}`
            : `${day.day}\nno audits`;
        },
      },
      xAxis: axis(c, { type: "category", data: values.map((day) => day.day.slice(5)) }),
      yAxis: upTo1(c, lowest),
      series: [
        {
          name: "Agreement of the audits", type: "line", symbol: "circle", symbolSize: 8,
          lineStyle: { color: c.handled, width: 2 }, itemStyle: { color: c.handled },
          connectNulls: true, data: values.map((day) => day.agreement.value), z: 3,
        },
        {
          name: "interval", type: "custom", renderItem: whisker(c), silent: true,
          data: known.map(({ i, lower, upper }) => [i, lower, upper]),
        },
        {
          name: "Asked for (α)", type: "line", symbol: "none", silent: true,
          lineStyle: { color: c.bad, type: "dashed", width: 1.5 }, itemStyle: { color: c.bad },
          data: values.map(() => alpha),
        },
      ],
    };
  }

  function frontier(c, { points, alpha }) {
    const narrow = innerWidth < 600;
    const certified = points.filter((point) => point.coverage > 0);
    const lowest = Math.min(...points.map((p) => p.alpha), ...certified.map((p) => p.agreement_lower));
    const x = (index, more) => shares(c, {
      gridIndex: index, min: "dataMin", max: "dataMax", splitLine: { show: false }, ...more,
      axisLabel: { color: c.muted, formatter: (v) => percent(v, 1), hideOverlap: true },
    });
    const line = (name, index, data, kind, more) => ({
      name, type: "line", xAxisIndex: index, yAxisIndex: index, symbol: "circle", symbolSize: 7,
      lineStyle: { color: c[kind], width: 2 }, itemStyle: { color: c[kind] }, data, ...more,
    });
    const here = {
      silent: true, symbol: "none", lineStyle: { color: c.muted, type: "dotted" },
      label: { formatter: "α now", color: c.muted, position: "end" },
      data: [{ xAxis: alpha }],
    };
    const grids = narrow
      ? [{ left: 8, right: 28, top: 84, height: "31%", containLabel: true },
         { left: 8, right: 28, bottom: 24, height: "31%", containLabel: true }]
      : [{ left: 8, width: "46%", top: 64, bottom: 26, containLabel: true },
         { right: 28, width: "44%", top: 64, bottom: 26, containLabel: true }];
    return {
      ...common(c),
      grid: grids,
      tooltip: {
        ...common(c).tooltip,
        formatter: (list) => {
          const point = points.find((each) => each.alpha === list[0].value[0]);
          if (!point) return "";
          return point.coverage
            ? `α = ${point.alpha}\ncoverage ${percent(point.coverage)}\nagreement ${percent(point.agreement, 2)}, at least ${atLeast(point.agreement_lower, 2)}`
            : `α = ${point.alpha}\nrefused: all would be deferred`;
        },
      },
      xAxis: [0, 1].map((index) => x(index, {
        name: "agreement asked for (α)", nameLocation: "middle", nameGap: 26, splitNumber: 4,
        nameTextStyle: { color: c.muted, align: "center" },
      })),
      yAxis: [
        shares(c, { gridIndex: 0, min: 0, max: 1, name: "coverage" }),
        upTo1(c, lowest, { gridIndex: 1, name: "agreement" }),
      ],
      series: [
        line("Coverage", 0, points.map((p) => [p.alpha, p.coverage]), "handled", {
          areaStyle: { color: c.handled, opacity: 0.12 }, markLine: here,
        }),
        line("Agreement", 1, certified.map((p) => [p.alpha, p.agreement]), "handled", { markLine: here }),
        line("At least", 1, certified.map((p) => [p.alpha, p.agreement_lower]), "audited", {
          lineStyle: { color: c.audited, width: 2, type: "dashed" },
        }),
        line("Asked for", 1, points.map((p) => [p.alpha, p.alpha]), "bad", {
          symbol: "none", lineStyle: { color: c.bad, type: "dotted", width: 1.5 }, silent: true,
        }),
      ],
    };
  }

  function curve(c, { name, points, forecast, target }) {
    const all = [...points, ...forecast];
    const lowest = Math.min(target, ...all.map((p) => p.lower));
    const line = (label, list, type) => ({
      name: label, type: "line", symbol: "circle", symbolSize: 8, itemStyle: { color: c.handled },
      lineStyle: { color: c.handled, width: 2, type }, data: list.map((p) => [p.n, p.agreement]),
    });
    return {
      ...common(c),
      legend: { ...common(c).legend, data: ["Measured", "Forecast", "Aim"] },
      grid: { ...common(c).grid, bottom: 24, right: 30 },
      tooltip: {
        ...common(c).tooltip,
        formatter: (list) => {
          const point = all.find((p) => p.n === list[0].value[0]);
          return point
            ? `${count(point.n)} traces\nagreement ${percent(point.agreement)}\n${between(point.lower, point.upper)}`
            : "";
        },
      },
      xAxis: axis(c, {
        type: "value", name: `traces (${name})`, nameLocation: "middle", nameGap: 26,
        nameTextStyle: { color: c.muted, align: "center" }, splitLine: { show: false },
        axisLabel: { color: c.muted, formatter: count, hideOverlap: true },
      }),
      yAxis: upTo1(c, lowest),
      series: [
        line("Measured", points, "solid"),
        line("Forecast", forecast.length ? [points.at(-1), ...forecast] : [], "dashed"),
        {
          name: "interval", type: "custom", renderItem: whisker(c), silent: true,
          data: all.map((p) => [p.n, p.lower, p.upper]),
        },
        {
          name: "Aim", type: "line", symbol: "none", silent: true, itemStyle: { color: c.bad },
          lineStyle: { color: c.bad, type: "dotted", width: 1.5 },
          data: [[Math.min(...all.map((p) => p.n)), target], [Math.max(...all.map((p) => p.n)), target]],
        },
      ],
    };
  }

  function spark(c, values) {
    return {
      animation: false, grid: { left: 2, right: 4, top: 4, bottom: 4 },
      xAxis: { type: "category", show: false, data: values.map(([day]) => day), boundaryGap: false },
      yAxis: { type: "value", show: false, min: 0, max: 1 },
      tooltip: {
        trigger: "axis", renderMode: "richText", confine: false, backgroundColor: c.surface,
        borderColor: c.grid, textStyle: { color: c.text, fontSize: 12 },
        formatter: ([{ dataIndex: i }]) => `${values[i][0]}: ${percent(values[i][1])}`,
      },
      series: [{
        type: "line", data: values.map(([, share]) => share), symbol: "circle",
        symbolSize: values.length > 1 ? 0 : 6, showSymbol: values.length === 1,
        lineStyle: { color: c.handled, width: 2 }, itemStyle: { color: c.handled },
        areaStyle: { color: c.handled, opacity: 0.15 },
      }],
    };
  }

  const kinds = { days, agreement, frontier, curve, spark };

  function draw(element) {
    const values = element.dataset.values;
    const theme = getComputedStyle(document.documentElement).getPropertyValue("color-scheme");
    let chart = drawn.get(element);
    if (!chart) {
      chart = echarts.init(element, null, { renderer: "canvas" });
      drawn.set(element, chart);
    } else if (chart.shown === values + theme + innerWidth) return;
    chart.setOption(kinds[element.dataset.chart](palette(), JSON.parse(values)), true);
    chart.shown = values + theme + innerWidth;
  }

  // Fifty sparklines are drawn as they come into view.
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      // Where it does not come, the next renewal of the page asks again.
      loaded().then(() => { if (entry.target.isConnected) draw(entry.target); }, () => {});
    }
  }, { rootMargin: "200px" });

  function all() {
    for (const [element, chart] of drawn) {
      if (element.isConnected) draw(element);
      else {
        chart.dispose();
        drawn.delete(element);
      }
    }
    for (const element of document.querySelectorAll("[data-chart]")) {
      if (!drawn.has(element)) watcher.observe(element);
    }
  }

  function redraw() {
    for (const chart of drawn.values()) {
      chart.shown = "";
      chart.resize();
    }
    all();
  }

  document.addEventListener("tracer:fresh", all);
  document.addEventListener("tracer:theme", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let waiting = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(redraw, calm ? 0 : 80);
  });
  all();
})();
