import { PageHead } from "../components/PageHead";
import { Snippet } from "../components/Snippet";
import { count } from "../format";
import { useTeachers } from "../hooks/useTeachers";
import { Link } from "../router";

const REGISTER = `curl ${location.origin}/v1/teachers \\
  -H "Authorization: Bearer $FEWSTEP_API_KEY" -H "Content-Type: application/json" \\
  -d '{"name": "my-teacher", "source": "teachers/my-teacher"}'`;

export function TeachersPage() {
  const teachers = useTeachers();
  return (
    <>
      <PageHead title="Teachers" lead="Pre-trained diffusion models, checked when they are registered." />
      <div className="stack">
        <div className="tiles">
          {teachers?.map((teacher) => {
            const [channels, height, width] = teacher.image_size;
            return (
              <article key={teacher.id} className="card tile">
                <h2 className="teacher-ink">{teacher.name}</h2>
                <dl className="facts">
                  <dt>Pipeline</dt><dd className="mono">{teacher.pipeline}</dd>
                  <dt>Scheduler</dt><dd className="mono">{teacher.scheduler}</dd>
                  <dt>Predicts</dt><dd className="mono">{teacher.prediction_type}</dd>
                  <dt>Image</dt><dd>{width}×{height}, {channels === 1 ? "grey" : `${channels} channels`}</dd>
                  <dt>Classes</dt><dd>{teacher.num_classes ?? "unconditional"}</dd>
                  <dt>Parameters</dt><dd>{count(teacher.parameters)}</dd>
                  <dt>Source</dt><dd className="mono">{teacher.source}</dd>
                  <dt>SHA-256</dt><dd className="mono">{teacher.sha256}</dd>
                </dl>
                <div className="row">
                  <Link href={`/jobs/new?teacher=${teacher.name}`} className="button primary">Distil it</Link>
                </div>
              </article>
            );
          })}
        </div>
        <section className="card" aria-labelledby="register">
          <div className="card-head"><h2 id="register">Register another</h2></div>
          <div className="stack">
            <p className="quiet">
              Put its diffusers folder (safetensors, scheduler included) into the artifact store, then name it:
            </p>
            <Snippet text={REGISTER} label="Register a teacher with curl" />
          </div>
        </section>
      </div>
    </>
  );
}
