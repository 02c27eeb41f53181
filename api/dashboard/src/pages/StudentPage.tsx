import { get } from "../api/client";
import type { Student } from "../api/types";
import { DeployButton } from "../components/DeployButton";
import { DownloadStudent } from "../components/DownloadStudent";
import { FiguresTable } from "../components/FiguresTable";
import { Lineage } from "../components/Lineage";
import { Notice } from "../components/Notice";
import { PageHead } from "../components/PageHead";
import { PixelImage } from "../components/PixelImage";
import { QualityPlot } from "../components/QualityPlot";
import { Snippet } from "../components/Snippet";
import { bytes, count, duration, moment } from "../format";
import { usePoll } from "../hooks/usePoll";
import { Link } from "../router";

function usage(student: Student): string {
  const classes = student.num_classes === null ? "" : "\n    class_labels=[7],";
  return `from diffusers import DiffusionPipeline

pipeline = DiffusionPipeline.from_pretrained(
    "${student.name}"
)
images = pipeline(${classes}
    num_inference_steps=${student.steps[0] ?? 1},
).images`;
}

export function StudentPage({ id }: { id: string }) {
  const { data: student, error } = usePoll(id, (signal) => get<Student>(`/v1/students/${id}`, signal), null);
  if (!student) return <Notice error={error} />;
  const [channels, height, width] = student.image_size;
  return (
    <>
      <PageHead title={student.name}
        crumbs={<><Link href="/students">Students</Link> / <span className="mono">{student.id}</span></>}
        lead={<>Made for {student.steps.join(", ")} sampling {student.steps.length === 1 && student.steps[0] === 1 ? "step" : "steps"}.</>}>
        <DownloadStudent student={student} />
        <DeployButton student={student} primary />
      </PageHead>
      <div className="stack">
        <Lineage student={student} />
        <div className="split">
          <div className="stack">
            <section className="card" aria-labelledby="grid">
              <div className="card-head">
                <h2 id="grid">Same seeds, <span className="teacher-ink">teacher</span> above</h2>
              </div>
              <div className="plate" tabIndex={0} role="region" aria-label="Samples">
                <PixelImage path={student.grid_url} zoom={10} alt={`The teacher's row above the rows of ${student.name}`} />
              </div>
            </section>
            <section className="card" aria-labelledby="figures">
              <div className="card-head"><h2 id="figures">Figures</h2></div>
              <QualityPlot student={student} />
              <FiguresTable student={student} />
            </section>
          </div>
          <div className="stack">
            <section className="card" aria-labelledby="facts">
              <div className="card-head"><h2 id="facts">Facts</h2></div>
              <dl className="facts">
                <dt>Method</dt><dd>{student.method}</dd>
                <dt>Image</dt><dd>{width}×{height}, {channels === 1 ? "grey" : `${channels} channels`}</dd>
                <dt>Classes</dt><dd>{student.num_classes ?? "unconditional"}</dd>
                <dt>Parameters</dt><dd>{count(student.parameters)}</dd>
                <dt>Size</dt><dd>{bytes(student.bytes)}</dd>
                <dt>Training</dt><dd>{duration(student.training_seconds)}</dd>
                <dt>Made</dt><dd>{moment(student.created_at)}</dd>
                <dt>SHA-256</dt><dd className="mono">{student.sha256}</dd>
              </dl>
            </section>
            <section className="card" aria-labelledby="use">
              <div className="card-head"><h2 id="use">Without Fewstep</h2></div>
              <Snippet text={usage(student)} label="Load it with diffusers" />
            </section>
          </div>
        </div>
      </div>
    </>
  );
}
