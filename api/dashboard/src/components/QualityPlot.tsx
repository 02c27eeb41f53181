import type { Figures, Student } from "../api/types";
import { figure, plural } from "../format";
import { byCount } from "./FiguresTable";

const WIDTH = 640;
const HEIGHT = 250;
const LEFT = 52;
const RIGHT = 84;
const TOP = 18;
const BOTTOM = 40;

interface Scale {
  x: (steps: number) => number;
  y: (frechet: number) => number;
}

function scales(points: [number, Figures][]): Scale {
  const lx = points.map(([n]) => Math.log2(n));
  const ly = points.map(([, f]) => Math.log10(Math.max(f.frechet, 1e-6)));
  const [x0, x1] = [Math.min(...lx), Math.max(...lx)];
  const [y0, y1] = [Math.min(...ly) - 0.18, Math.max(...ly) + 0.08];
  return {
    x: (n) => LEFT + ((Math.log2(n) - x0) / (x1 - x0 || 1)) * (WIDTH - LEFT - RIGHT),
    y: (f) => TOP + ((y1 - Math.log10(Math.max(f, 1e-6))) / (y1 - y0 || 1)) * (HEIGHT - TOP - BOTTOM),
  };
}

function Line({ of, scale, who }: { of: [number, Figures][]; scale: Scale; who: "teacher" | "student" }) {
  const at = of.map(([n, f]) => `${scale.x(n)},${scale.y(f.frechet)}`);
  return (
    <g className={`plot-${who}`}>
      {at.length > 1 && <polyline points={at.join(" ")} />}
      {of.map(([n, f]) => (
        <g key={n}>
          {who === "student" ? (
            <rect x={scale.x(n) - 6} y={scale.y(f.frechet) - 6} width="12" height="12" rx="2" />
          ) : (
            <circle cx={scale.x(n)} cy={scale.y(f.frechet)} r="4.5" />
          )}
          <text x={scale.x(n) + (who === "student" ? 6 : 11)} y={scale.y(f.frechet) + (who === "student" ? 22 : -5)}>{figure(f.frechet)}</text>
        </g>
      ))}
    </g>
  );
}

/** Fréchet distance against sampling steps, both logarithmic: how far to the left the student moves its teacher. */
export function QualityPlot({ student }: { student: Student }) {
  const own = byCount(student.figures);
  const teacher = byCount(student.teacher_figures);
  const scale = scales([...own, ...teacher]);
  const counts = [...new Set([...own, ...teacher].map(([n]) => n))].sort((a, b) => a - b);
  const summary = own.map(([n, f]) => `student in ${plural(n, "step")} ${figure(f.frechet)}`).join(", ");
  return (
    <figure className="plot">
      <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label={`Fréchet distance by sampling steps: ${summary}`}>
        {counts.map((n) => (
          <g key={n} className="plot-axis">
            <line x1={scale.x(n)} x2={scale.x(n)} y1={TOP} y2={HEIGHT - BOTTOM} />
            <text x={scale.x(n)} y={HEIGHT - BOTTOM + 18} textAnchor="middle">{n}</text>
          </g>
        ))}
        <text className="plot-title" x={(LEFT + WIDTH - RIGHT) / 2} y={HEIGHT - 4} textAnchor="middle">sampling steps</text>
        <text className="plot-title" transform={`translate(16 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)`} textAnchor="middle">
          Fréchet distance
        </text>
        <Line of={teacher} scale={scale} who="teacher" />
        <Line of={own} scale={scale} who="student" />
      </svg>
    </figure>
  );
}
