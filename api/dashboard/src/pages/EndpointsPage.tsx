import { get } from "../api/client";
import type { Endpoint, Page } from "../api/types";
import { EndpointCard } from "../components/EndpointCard";
import { Notice } from "../components/Notice";
import { PageHead } from "../components/PageHead";
import { usePoll } from "../hooks/usePoll";
import { Link } from "../router";

const PATH = "/v1/endpoints?limit=100";

export function EndpointsPage() {
  const { data, error, refresh } = usePoll(PATH, (signal) => get<Page<Endpoint>>(PATH, signal), 2000);
  return (
    <>
      <PageHead title="Endpoints" lead="Students that answer the OpenAI images API." />
      <Notice error={error} />
      {data && data.data.length === 0 && (
        <div className="empty">
          <h2>No endpoints yet</h2>
          <p className="quiet">Deploy a student to get one.</p>
          <Link href="/students" className="button primary">Students</Link>
        </div>
      )}
      <div className="tiles">
        {data?.data.map((endpoint) => <EndpointCard key={endpoint.id} endpoint={endpoint} onChange={refresh} />)}
      </div>
    </>
  );
}
