import type { Figures, Student } from "../api/types";
import { figure, percent } from "../format";

function byCount(figures: Record<string, Figures>): [number, Figures][] {
  return Object.entries(figures)
    .map(([n, f]): [number, Figures] => [Number(n), f])
    .sort(([a], [b]) => a - b);
}

function Row({ who, steps, of }: { who: "teacher" | "student"; steps: number; of: Figures }) {
  return (
    <tr className={who}>
      <td>
        {who}, {steps} {steps === 1 ? "step" : "steps"}
      </td>
      <td>{figure(of.frechet)}</td>
      <td>{figure(of.kernel)}</td>
      <td>{percent(of.accuracy)}</td>
      <td>{figure(of.recall)}</td>
      <td>{figure(of.diversity)}</td>
      <td>{figure(of.ms_per_image)}</td>
    </tr>
  );
}

/** The student's quality beside its teacher's, at the same and at the reference number of steps. */
export function FiguresTable({ student }: { student: Student }) {
  const teacher = byCount(student.teacher_figures);
  const reference = teacher.at(-1);
  return (
    <div className="table-scroll" tabIndex={0} role="region" aria-label={`Figures of ${student.name}`}>
      <table className="figures-table">
        <thead>
          <tr>
            <th scope="col"><span className="visually-hidden">Sampler</span></th>
            <th scope="col" title="Fréchet distance to held-out data; lower is better">Fréchet ↓</th>
            <th scope="col" title="Kernel distance to held-out data; lower is better">Kernel ↓</th>
            <th scope="col" title="Share of images that a classifier reads as the class asked for">Accuracy ↑</th>
            <th scope="col" title="Share of the data that the samples cover">Recall ↑</th>
            <th scope="col" title="Spread of the samples within a class, relative to the data's">Diversity</th>
            <th scope="col" title="Milliseconds per image">ms/image</th>
          </tr>
        </thead>
        <tbody>
          {byCount(student.figures).map(([n, f]) => <Row key={n} who="student" steps={n} of={f} />)}
          {teacher.slice(0, -1).map(([n, f]) => <Row key={`t${n}`} who="teacher" steps={n} of={f} />)}
          {reference && <Row who="teacher" steps={reference[0]} of={reference[1]} />}
        </tbody>
      </table>
    </div>
  );
}
