import { get } from "../api/client";
import type { Endpoint, Page } from "../api/types";
import { Notice } from "../components/Notice";
import { PageHead } from "../components/PageHead";
import { usePoll } from "../hooks/usePoll";
import { Playground } from "../playground/Playground";
import { Link } from "../router";

const PATH = "/v1/endpoints?limit=100";

export function PlaygroundPage() {
  const { data, error } = usePoll(PATH, (signal) => get<Page<Endpoint>>(PATH, signal), 5000);
  const ready = data?.data.filter((endpoint) => endpoint.status === "ready") ?? [];
  return (
    <>
      <PageHead title="Playground" lead="The same seed for teacher and student: see what the saved steps cost." />
      <Notice error={error} />
      {data && ready.length === 0 && (
        <div className="empty">
          <h2>No endpoint is ready</h2>
          <p className="quiet">Deploy a student, then come back.</p>
          <Link href={data.data.length > 0 ? "/endpoints" : "/students"} className="button primary">
            {data.data.length > 0 ? "Endpoints" : "Students"}
          </Link>
        </div>
      )}
      {ready.length > 0 && <Playground endpoints={ready} />}
    </>
  );
}
