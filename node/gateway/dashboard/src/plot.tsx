// A plot of the last minutes, drawn by uPlot.

import { useEffect, useRef, useState } from "react";
import uPlot from "uplot";
import { clock } from "./format";
import type { Point } from "./types";

export interface Series {
  label: string;
  /// Name of a colour in the style sheet.
  color: string;
  value: (point: Point) => number | null | undefined;
  fill?: boolean;
  /// Of some seconds there is nothing: points, so that one that stands alone is seen.
  sparse?: boolean;
}

const HEIGHT = 168;
/// What is shown at most, and at least.
const WINDOW_S = 300;
const SHORTEST_S = 60;

function color(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/// Points without a neighbour, to which no line leads.
function alone(plot: uPlot, index: number): number[] {
  const values = plot.data[index] ?? [];
  const none = (value: number | null | undefined) => value === null || value === undefined;
  return Array.from(values, (_, i) => i).filter((i) => !none(values[i]) && none(values[i - 1]) && none(values[i + 1]));
}

function options(series: Series[], format: (value: number | null) => string, width: number, look: (index: number | null) => void): uPlot.Options {
  const axis = { stroke: color("muted"), grid: { stroke: color("grid"), width: 1 }, ticks: { show: false }, font: "11px Inter Variable, sans-serif" };
  return {
    width,
    height: HEIGHT,
    padding: [10, 26, 0, 0],
    cursor: { y: false, points: { size: 6 } },
    legend: { show: false },
    hooks: { setCursor: [(plot) => look(plot.cursor.idx ?? null)] },
    scales: {
      x: { time: true, range: (_, min, max) => [Math.min(max - SHORTEST_S, Math.max(min, max - WINDOW_S)), max] },
      y: { range: (_, __, max) => [0, Math.max(max * 1.1, 1)] },
    },
    axes: [
      { ...axis, size: 26, space: 70, values: (_, ticks) => ticks.map((t) => clock(t * 1000).slice(0, t % 60 === 0 ? 5 : 8)) },
      { ...axis, size: 58, space: 34, values: (_, ticks) => ticks.map((tick) => format(tick)) },
    ],
    series: [
      {},
      ...series.map((one) => ({
        label: one.label,
        stroke: color(one.color),
        width: 1.75,
        points: one.sparse === true ? { show: true, size: 4, width: 0, fill: color(one.color), filter: alone } : { show: false },
        spanGaps: false,
        ...(one.fill === true ? { fill: `${color(one.color)}22` } : {}),
      })),
    ],
  };
}

export function Plot(props: { points: Point[]; series: Series[]; format: (value: number | null) => string; label: string; theme: string }) {
  const { points, series, format, theme } = props;
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const [width, setWidth] = useState(0);
  const [at, setAt] = useState<number | null>(null);
  useEffect(() => {
    const element = box.current;
    if (element === null) return;
    const observer = new ResizeObserver(() => setWidth(element.clientWidth));
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  const data = (): uPlot.AlignedData => [
    points.map((point) => point.t / 1000),
    ...series.map((one) => points.map((point) => one.value(point) ?? null)),
  ];
  useEffect(() => {
    const element = box.current;
    if (element === null || width === 0) return;
    plot.current = new uPlot(options(series, format, width, setAt), data(), element);
    return () => {
      plot.current?.destroy();
      plot.current = null;
    };
    // Colours are read when the plot is made; what is plotted changes below.
  }, [width, theme]);
  useEffect(() => {
    plot.current?.setData(data());
  }, [points]);
  const shown = (at === null ? undefined : points[at]) ?? points.at(-1);
  const value = (one: Series) => format((shown && one.value(shown)) ?? null);
  const spoken = series.map((one) => `${one.label} ${value(one)}`).join(", ");
  return (
    <>
      <div className="plot" ref={box} role="img" aria-label={`${props.label}: ${spoken}`} style={{ minHeight: HEIGHT }} />
      <div className="legend" aria-hidden="true">
        {series.map((one) => (
          <span key={one.label}>
            <i style={{ background: `var(--${one.color})` }} />
            {one.label} <b>{value(one)}</b>
          </span>
        ))}
        {at !== null && shown !== undefined && <span className="at">{clock(shown.t)}</span>}
      </div>
    </>
  );
}
