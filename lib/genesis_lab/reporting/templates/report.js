// Unpacks plotly.js (base 85, deflate) and draws the charts, small ones on a narrow screen.
(async () => {
  const signs = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;,=>?@^_`{|}~";
  const value = Object.fromEntries([...signs].map((sign, i) => [sign, i]));
  const text = document.getElementById("plotly").textContent.trim();
  const bytes = new Uint8Array(Math.floor((text.length * 4) / 5));
  for (let i = 0, at = 0; i < text.length; i += 5) {
    let n = 0;
    for (let j = i; j < i + 5; j++) n = n * 85 + (j < text.length ? value[text[j]] : 84);
    for (let shift = 24; shift >= 0; shift -= 8, at++) if (at < bytes.length) bytes[at] = (n / 2 ** shift) & 255;
  }
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  const code = document.createElement("script");
  code.textContent = await new Response(stream).text();
  document.head.append(code);
  const narrow = document.body.clientWidth < 600;
  for (const figure of document.querySelectorAll("figure[data-chart]")) {
    const place = figure.querySelector("div.chart");
    const { data, layout } = JSON.parse(figure.querySelector("script").textContent);
    if (narrow && layout.yaxis && layout.yaxis.type === "category") {
      const dots = data.every((trace) => trace.type === "scatter");
      // Labels inside of a chart get a colour of plotly's own where they have none
      layout.yaxis = { ...layout.yaxis, tickfont: { size: dots ? 11 : 10, color: layout.template.layout.font.color } };
      if (dots) {
        Object.assign(layout.yaxis, { ticklabelposition: "inside", ticklabelshift: 12, ticklabeloverflow: "allow" });
        layout.height = layout.height * 1.5;
        layout.margin = { ...layout.margin, t: 20 };
        place.style.height = layout.height + "px";
      }
    }
    if (narrow) layout.margin = { ...layout.margin, l: 4, r: 26 };
    Plotly.newPlot(place, data, layout, CONFIG);
  }
})().catch(() => document.querySelectorAll("div.chart").forEach((place) => (place.textContent = "–")));
