import type { Figures, Student } from "../api/types";
import { figure, percent, plural } from "../format";

export function byCount(figures: Record<string, Figures>): [number, Figures][] {
  return Object.entries(figures)
    .map(([n, f]): [number, Figures] => [Number(n), f])
    .sort(([a], [b]) => a - b);
}

interface Optional {
  field: "cmmd" | "clip_score" | "agreement";
  head: string;
  title: string;
}

const OPTIONAL: readonly Optional[] = [
  { field: "cmmd", head: "CMMD\u00a0↓", title: "Distance of CLIP embeddings to held-out data's; lower is better" },
  { field: "clip_score", head: "CLIP score\u00a0↑", title: "100 times the cosine of image and prompt; higher is better" },
  {
    field: "agreement",
    head: "Agreement\u00a0↓",
    title: "How far images are from the teacher's for the same seeds; 0 is the same images",
  },
];

/** What some row knows. */
function knownOf(rows: readonly [number, Figures][]): Optional[] {
  return OPTIONAL.filter(({ field }) => rows.some(([, of]) => of[field] != null));
}

interface RowProps {
  who: "teacher" | "student";
  steps: number;
  of: Figures;
  compact: boolean;
  known: readonly Optional[];
}

function Row({ who, steps, of, compact, known }: RowProps) {
  return (
    <tr className={who}>
      <td>{who}, {plural(steps, "step")}</td>
      <td>{figure(of.frechet)}</td>
      {!compact && <td>{figure(of.kernel)}</td>}
      {known.map(({ field }) => <td key={field}>{figure(of[field] ?? null)}</td>)}
      <td>{percent(of.accuracy)}</td>
      {!compact && <td>{figure(of.precision)}</td>}
      <td>{figure(of.recall)}</td>
      {!compact && <td>{figure(of.diversity)}</td>}
      {!compact && <td>{figure(of.nearest_neighbour_ratio)}</td>}
      <td>{figure(of.ms_per_image)}</td>
    </tr>
  );
}

/** The student's quality beside its teacher's; compact leaves the teacher only its reference row. */
export function FiguresTable({ student, compact = false }: { student: Student; compact?: boolean }) {
  const teacher = byCount(student.teacher_figures);
  const shown = compact ? teacher.slice(-1) : teacher;
  const known = compact ? [] : knownOf([...byCount(student.figures), ...shown]);
  return (
    <div className="table-scroll" tabIndex={0} role="region" aria-label={`Figures of ${student.name}`}>
      <table className="figures-table">
        <thead>
          <tr>
            <th scope="col"><span className="visually-hidden">Sampler</span></th>
            <th scope="col" title="Fréchet distance to held-out data; lower is better">Fréchet&nbsp;↓</th>
            {!compact && <th scope="col" title="Kernel distance to held-out data; lower is better">Kernel&nbsp;↓</th>}
            {known.map(({ field, head, title }) => <th key={field} scope="col" title={title}>{head}</th>)}
            <th scope="col" title="Share of images that a classifier reads as the class asked for">Accuracy&nbsp;↑</th>
            {!compact && <th scope="col" title="Share of the samples that look like data">Precision&nbsp;↑</th>}
            <th scope="col" title="Share of the data that the samples cover">Recall&nbsp;↑</th>
            {!compact && <th scope="col" title="Spread of the samples, relative to the data's; 1 is the data's own">Diversity</th>}
            {!compact && <th scope="col" title="Distance to the nearest training image, relative to held-out data's; far below 1 is copying">NN ratio</th>}
            <th scope="col" title="Milliseconds per image">{compact ? "ms" : "ms/image"}</th>
          </tr>
        </thead>
        <tbody>
          {byCount(student.figures).map(([n, f]) => <Row key={n} who="student" steps={n} of={f} compact={compact} known={known} />)}
          {shown.map(([n, f]) => <Row key={`t${n}`} who="teacher" steps={n} of={f} compact={compact} known={known} />)}
        </tbody>
      </table>
    </div>
  );
}
