import type { Student } from "../api/types";
import { age, bytes, parameters } from "../format";
import { Link } from "../router";
import { DeployButton } from "./DeployButton";
import { DownloadStudent } from "./DownloadStudent";
import { FiguresTable } from "./FiguresTable";
import { PixelImage } from "./PixelImage";

export function StudentTile({ student }: { student: Student }) {
  return (
    <article className="card tile">
      <div>
        <h2><Link href={`/students/${student.id}`}>{student.name}</Link></h2>
        <p className="small quiet">
          {student.method} of <span className="teacher-ink">{student.teacher}</span>, {parameters(student.parameters)}{" "}
          parameters, {bytes(student.bytes)}, {age(student.created_at)}
        </p>
      </div>
      <div className="plate" tabIndex={0} role="region" aria-label={`Samples of ${student.name}`}>
        <PixelImage path={student.grid_url} zoom={4.5} alt={`The teacher's row above the rows of ${student.name}`} />
      </div>
      <FiguresTable student={student} compact />
      <div className="row">
        <DeployButton student={student} primary />
        <DownloadStudent student={student} />
      </div>
    </article>
  );
}
