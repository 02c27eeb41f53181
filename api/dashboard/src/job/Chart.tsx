import { useEffect, useRef } from "react";
import uPlot from "uplot";

import { figure } from "../format";
import { token, useTheme } from "../theme";
import { smooth } from "./smooth";

interface Props {
  title: string;
  steps: number[];
  values: (number | null)[];
  stages: number[];
  color: string;
  log: boolean;
  smoothing: number;
}

const HEIGHT = 172;

function tick(value: number): string {
  const size = Math.abs(value);
  return size !== 0 && (size < 0.001 || size >= 100_000) ? value.toExponential(0) : String(Number(value.toPrecision(4)));
}

function options(width: number, color: string, log: boolean, stages: () => number[], latest: HTMLElement): uPlot.Options {
  const axis = {
    stroke: token("--ink-2"),
    grid: { stroke: token("--line"), width: 1 },
    ticks: { stroke: token("--line"), width: 1, size: 4 },
    font: "11px 'JetBrains Mono', monospace",
  };
  const line = token(color);
  return {
    width,
    height: HEIGHT,
    padding: [8, 20, 0, 0],
    cursor: { sync: { key: "job" }, y: false, points: { size: 7 } },
    scales: { x: { time: false }, y: { distr: log ? 3 : 1 } },
    axes: [
      { ...axis, size: 28, space: 60 },
      { ...axis, size: 56, space: 34, values: (_, ticks) => ticks.map((t) => (t === null ? "" : tick(t))) },
    ],
    series: [
      {},
      { stroke: `color-mix(in srgb, ${line} 30%, transparent)`, width: 1, points: { show: false } },
      { stroke: line, width: 2, points: { show: false } },
    ],
    hooks: {
      setCursor: [
        (plot) => {
          const at = plot.cursor.idx ?? plot.data[0].length - 1;
          latest.textContent = figure(plot.data[1]?.[at]);
        },
      ],
      draw: [
        (plot) => {
          const { ctx, bbox } = plot;
          ctx.save();
          ctx.strokeStyle = token("--line-strong");
          ctx.setLineDash([4, 4]);
          for (const step of stages()) {
            const x = Math.round(plot.valToPos(step, "x", true));
            ctx.beginPath();
            ctx.moveTo(x, bbox.top);
            ctx.lineTo(x, bbox.top + bbox.height);
            ctx.stroke();
          }
          ctx.restore();
        },
      ],
    },
  };
}

/** One figure over steps: faint as measured, strong when smoothed; the cursor is shared by all charts. */
export function Chart({ title, steps, values, stages, color, log, smoothing }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const latest = useRef<HTMLSpanElement>(null);
  const plot = useRef<uPlot | null>(null);
  const bounds = useRef(stages);
  bounds.current = stages;
  const theme = useTheme();

  const shown = log ? values.map((v) => (v !== null && v > 0 ? v : null)) : values;
  const data: uPlot.AlignedData = [steps, shown, smooth(shown, smoothing)];
  const current = useRef(data);
  current.current = data;

  useEffect(() => {
    const element = box.current;
    const readout = latest.current;
    if (!element || !readout) return;
    const made = new uPlot(
      options(element.clientWidth, color, log, () => bounds.current, readout),
      current.current,
      element,
    );
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height: HEIGHT }));
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [color, log, theme]);

  useEffect(() => {
    plot.current?.setData(current.current);
    if (latest.current) latest.current.textContent = figure(values.at(-1));
  }, [steps.length, values, smoothing, log, theme]);

  return (
    <figure className="chart" role="img" aria-label={`${title} over steps, now ${figure(values.at(-1))}`}>
      <h3>
        {title}
        <span ref={latest} />
      </h3>
      <div ref={box} />
    </figure>
  );
}
